//! The commands that ask who is there.

use super::Session;
use crate::disconnect::{ClientError, Disconnect};
use crate::effect::Effect;
use crate::shared::Cx;
use hub::{Presence, PresenceQuery};

impl Session {
    pub(super) fn presence(
        &mut self,
        cx: &mut Cx<'_>,
        id: u32,
        channel: &str,
        query: PresenceQuery,
    ) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        if let Err(error) = self.may_read_presence(cx, channel) {
            return self.refuse(cx, id, &error);
        }
        let channel = cx.channel(channel);
        cx.shared.effects.push(Effect::Presence { command: id, channel, query });
        Ok(())
    }

    fn may_read_presence(&self, cx: &mut Cx<'_>, channel: &str) -> Result<(), ClientError> {
        if channel.len() > cx.shared.settings.limits.channel_name_bytes_max || !channel.is_ascii() {
            return Err(ClientError::BAD_REQUEST);
        }
        let (anonymous, subscribed) = (self.is_anonymous(), self.subscription(cx, channel).is_some());
        self.permit(cx, channel, |namespace| {
            // That there is none is the better answer.
            if namespace.presence { namespace.may_read_presence(anonymous, subscribed) } else { Ok(()) }
        })?;
        let is_kept = cx.shared.settings.namespaces.of(channel).is_some_and(|(_, namespace)| namespace.presence);
        if is_kept { Ok(()) } else { Err(ClientError::NOT_AVAILABLE) }
    }

    /// The home has said who is present for that command, or how many, or not.
    pub(crate) fn presence_read(
        &mut self,
        cx: &mut Cx<'_>,
        id: u32,
        answer: Result<Presence, ClientError>,
    ) -> Result<(), Disconnect> {
        let presence = match answer {
            Ok(presence) => presence,
            Err(error) => return self.refuse(cx, id, &error),
        };
        let (format, mut text) = (self.format(), Vec::new());
        format.presence(&mut text, id, &presence);
        // Infos are the clients' own and may be long. Half a list would be taken for the whole.
        if text.len() > cx.shared.settings.limits.reply_bytes_max {
            return self.refuse(cx, id, &ClientError::LIMIT_EXCEEDED);
        }
        if !cx.composed(format.opcode(), &text, &[]) {
            return self.refuse(cx, id, &ClientError::TOO_MANY_REQUESTS);
        }
        Ok(())
    }
}
