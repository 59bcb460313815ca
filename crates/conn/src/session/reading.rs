//! The history command.

use super::Session;
use crate::command::History;
use crate::disconnect::{ClientError, Disconnect};
use crate::effect::Effect;
use crate::shared::Cx;
use hub::{HistoryPage, HistoryQuery};

impl Session {
    pub(super) fn history(&mut self, cx: &mut Cx<'_>, id: u32, request: &History<'_>) -> Result<(), Disconnect> {
        if request.channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        if let Err(error) = self.may_read_history(cx, &request.channel) {
            return self.refuse(cx, id, &error);
        }
        let limits = &cx.shared.settings.limits;
        // Below 0 is as many as there may be.
        let wanted = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let query = HistoryQuery {
            since: request.since.as_ref().map(|position| position.since()),
            reverse: request.reverse,
            publications_max: wanted.min(limits.history_publications_max),
            bytes_max: limits.reply_bytes_max,
        };
        let channel = cx.channel(&request.channel);
        cx.shared.effects.push(Effect::History { command: id, channel, query });
        Ok(())
    }

    fn may_read_history(&self, cx: &mut Cx<'_>, channel: &str) -> Result<(), ClientError> {
        if channel.len() > cx.shared.settings.limits.channel_name_bytes_max || !channel.is_ascii() {
            return Err(ClientError::BAD_REQUEST);
        }
        let anonymous = self.is_anonymous();
        let subscribed = self.subscription(cx, channel).is_some();
        self.permit(cx, channel, |namespace| match namespace.history {
            // That there is none is the better answer.
            None => Ok(()),
            Some(_) => namespace.may_read_history(anonymous, subscribed),
        })?;
        let kept = cx.shared.settings.namespaces.of(channel).and_then(|(_, namespace)| namespace.history);
        kept.map(|_| ()).ok_or(ClientError::NOT_AVAILABLE)
    }

    /// The home has read the history for that command, or not.
    pub(crate) fn history_read(
        &mut self,
        cx: &mut Cx<'_>,
        id: u32,
        answer: Result<HistoryPage, ClientError>,
    ) -> Result<(), Disconnect> {
        let mut page = match answer {
            Ok(page) => page,
            Err(error) => return self.refuse(cx, id, &error),
        };
        let bytes_max = cx.shared.settings.limits.reply_bytes_max;
        let wanted = page.publications.len();
        let (format, mut text) = (self.format(), Vec::new());
        loop {
            text.clear();
            format.history(&mut text, id, &page);
            let len = page.publications.len();
            if text.len() <= bytes_max || len == 0 {
                break;
            }
            // The home has counted what publishers wrote; the envelopes come on top. Cut by their share, at least one.
            page.publications.truncate((len * bytes_max / text.len()).min(len - 1));
        }
        if wanted > 0 && page.publications.is_empty() {
            return self.refuse(cx, id, &ClientError::LIMIT_EXCEEDED);
        }
        if !cx.composed(format.opcode(), &text, &[]) {
            return self.refuse(cx, id, &ClientError::TOO_MANY_REQUESTS);
        }
        Ok(())
    }
}
