//! What the home says of who is present.

use crate::world::World;
use conn::ClientError;
use hub::{ClientInfo, Presence, PresenceQuery, PresenceStats};
use std::sync::Arc;

impl World {
    /// The home answers a presence command, sometimes with more than fits.
    pub(crate) fn tell_presence(&mut self, command: u32, query: PresenceQuery) {
        let bytes = [10, 1000, 5000][command as usize % 3];
        let info = ClientInfo { client: "c".into(), user: "u".repeat(bytes).into(), ..ClientInfo::default() };
        let answer = match query {
            _ if command.is_multiple_of(5) => Err(ClientError::INTERNAL),
            PresenceQuery::Clients => Ok(Presence::Clients(vec![Arc::new(info)])),
            PresenceQuery::Stats => Ok(Presence::Stats(PresenceStats { clients: command, users: 1 })),
        };
        self.call(|connection, now, shared| connection.presence_read(now, command, answer, shared));
    }
}
