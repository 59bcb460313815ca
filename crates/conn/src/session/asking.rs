//! What a session asks its backend, and what it makes of the answers.
//!
//! A command that asks holds the input behind it until the answer, so that at most one such question is due. What is asked
//! because some time is over holds nothing: it is known by the number that [`Renewer::Backend`] keeps.

use super::connecting::Opening;
use super::identity::{Grant, Refusal, Renewer};
use super::{Dialect, Session, Stage};
use crate::auth::token::Json;
use crate::command::{Connect, Rpc, Subscribe};
use crate::disconnect::{ClientError, Disconnect};
use crate::effect::Effect;
use crate::liveness::Liveness;
use crate::shared::Cx;
use crate::webhook::{About, Admission, Answer, Event, Given, Question, Renewal, Rewritten, Verdict};
use hub::LocalId;

/// A question of a command.
#[derive(Debug)]
pub(super) struct Due {
    number: u32,
    /// The command's id; 0 for a plain connect.
    command: u32,
    then: Then,
}

/// What the answer is for.
#[derive(Debug)]
enum Then {
    Connect(Connect<'static>),
    Subscribe(Subscribe<'static>),
    Publish { channel: String, data: Json },
    Reply,
}

impl Cx<'_> {
    /// Whether there is a backend to be asked about that in this channel.
    pub(super) fn asks(&self, event: Event, channel: &str) -> bool {
        let settings = &self.shared.settings;
        let wanted = settings.namespaces.of(channel).is_some_and(|(_, namespace)| match event {
            Event::Subscribe => namespace.subscribe_proxy_enabled,
            Event::Publish => namespace.publish_proxy_enabled,
            Event::SubRefresh => namespace.sub_refresh_proxy_enabled,
            Event::Connect | Event::Refresh | Event::Rpc => true,
        });
        wanted && settings.webhooks.answer(event)
    }
}

impl Session {
    /// Asks; the answer repeats the number that is returned.
    pub(super) fn ask_backend(&self, cx: &mut Cx<'_>, about: About) -> u32 {
        let number = cx.shared.next_sequence();
        let (transport, protocol) = self.encoding().spoken_over();
        let passed_on = self.passed_on();
        let question = Question {
            client: self.client,
            transport,
            protocol,
            user: self.user().into(),
            meta: passed_on.and_then(|passed_on| passed_on.meta.clone()),
            headers: passed_on.and_then(|passed_on| passed_on.headers.clone()),
            about,
        };
        cx.shared.effects.push(Effect::AskBackend { number, question: Box::new(question) });
        number
    }

    fn ask_for_command(&mut self, cx: &mut Cx<'_>, command: u32, about: About, then: Then) {
        let number = self.ask_backend(cx, about);
        self.waiting.get_or_insert_default().question = Some(Box::new(Due { number, command, then }));
    }

    /// Who is this? Everything else waits for the answer.
    pub(super) fn ask_who_connects(&mut self, cx: &mut Cx<'_>, command: u32, connect: Connect<'_>) {
        self.stage = Stage::Connecting;
        self.pass_on_emulated(cx.shared, &connect.headers);
        let channels = match self.dialect {
            Dialect::Plain => connect.channels.iter().map(|wanted| wanted.channel.to_string()).collect(),
            // Those of an SDK are what it had before, not what it wants.
            Dialect::Centrifugo(_) => Vec::new(),
        };
        let (name, version) = (connect.name.to_string(), connect.version.to_string());
        let about = About::Connect { name, version, data: json(&connect.data), channels };
        self.ask_for_command(cx, command, about, Then::Connect(connect.into_owned()));
    }

    pub(super) fn ask_whether_to_subscribe(&mut self, cx: &mut Cx<'_>, command: u32, request: Subscribe<'_>) {
        let about = About::Subscribe { channel: request.channel.to_string(), data: json(&request.data) };
        self.ask_for_command(cx, command, about, Then::Subscribe(request.into_owned()));
    }

    pub(super) fn ask_whether_to_publish(&mut self, cx: &mut Cx<'_>, command: u32, channel: &str, data: &str) {
        let (channel, data) = (channel.to_owned(), Json::from(data.as_bytes()));
        let about = About::Publish { channel: channel.clone(), data: data.clone() };
        self.ask_for_command(cx, command, about, Then::Publish { channel, data });
    }

    /// The rpc command.
    pub(super) fn rpc(&mut self, cx: &mut Cx<'_>, id: u32, rpc: &Rpc<'_>) -> Result<(), Disconnect> {
        if !cx.shared.settings.webhooks.answer(Event::Rpc) {
            return self.refuse(cx, id, &ClientError::NOT_AVAILABLE);
        }
        let about = About::Rpc { method: rpc.method.to_string(), data: json(&rpc.data) };
        self.ask_for_command(cx, id, about, Then::Reply);
        Ok(())
    }

    /// The backend has answered the question of that number. One that nobody waits for any more changes nothing.
    pub(crate) fn backend_answered(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        number: u32,
        answer: Answer,
    ) -> Result<(), Disconnect> {
        let due = self.waiting.as_mut().and_then(|waiting| waiting.question.take_if(|due| due.number == number));
        let Some(due) = due else { return self.renewal_answered(cx, number, answer) };
        self.drop_idle_waiting();
        let Due { command, then, .. } = *due;
        let done = match (then, answer) {
            (Then::Connect(connect), Answer::Result(Verdict::Connect(admission))) => {
                let done = self.come(cx, liveness, command, &connect, admission);
                return self.answer_connect(cx, command, done);
            }
            (Then::Connect(_), answer) => return self.answer_connect(cx, command, Err(refusal(answer))),
            (Then::Subscribe(request), Answer::Result(Verdict::Subscribe(given))) => {
                self.subscribe_given(cx, command, &request, given)
            }
            (Then::Publish { channel, data }, Answer::Result(Verdict::Publish(rewritten))) => {
                let Rewritten { data: other, tags, options } = rewritten;
                let data = other.as_deref().unwrap_or(&data).into();
                self.publish_now(cx, command, &channel, data, (tags, options));
                Ok(())
            }
            (Then::Reply, Answer::Result(Verdict::Rpc(data))) => {
                return self.reply(cx, |format, out, _| format.called(out, command, data.as_deref()));
            }
            (_, answer) => Err(refusal(answer)),
        };
        self.answer_refusal(cx, command, done)
    }

    /// The client is whom the backend has named, or nobody in particular where it has named none.
    fn come(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        command: u32,
        connect: &Connect<'_>,
        admission: Option<Box<Admission>>,
    ) -> Result<(), Refusal> {
        let (claims, data) = match admission {
            Some(admission) => {
                self.say_of(cx.shared, None, admission.meta);
                (Some(admission.claims), admission.data)
            }
            None => (None, None),
        };
        let renewer =
            if cx.shared.settings.webhooks.answer(Event::Refresh) { Renewer::BACKEND } else { Renewer::Client };
        let (expiry, channels) = self.enter(cx, claims, renewer)?;
        self.ask_for_server_side(cx, connect, channels)?;
        Ok(self.open(cx, liveness, Opening { command, expiry, data })?)
    }

    /// While the backend was asked, somebody else may have given the client the channel, or all that it may have.
    fn subscribe_given(
        &mut self,
        cx: &mut Cx<'_>,
        command: u32,
        request: &Subscribe<'_>,
        given: Given,
    ) -> Result<(), Refusal> {
        self.may_have_one_more(cx, &request.channel)?;
        let backend = cx.asks(Event::SubRefresh, &request.channel);
        let renewer = if backend { Renewer::BACKEND } else { Renewer::Client };
        let expiry = cx.expiry(given.lasts, renewer)?;
        let (chan_info, data, changed) = (given.info, given.data, given.changed);
        self.ask(cx, command, request, Grant { expiry, chan_info, data, changed, ..Grant::default() });
        Ok(())
    }

    /// The backend says whether the connection or a subscription goes on. Where it says nothing, that has been prolonged
    /// already, and it will be asked again.
    fn renewal_answered(&mut self, cx: &mut Cx<'_>, number: u32, answer: Answer) -> Result<(), Disconnect> {
        if self.is_asked_about(number) {
            return match answer {
                Answer::Result(Verdict::Refresh(renewal)) => self.renew(cx, renewal),
                Answer::Disconnect(why) => Err(why),
                _ => Ok(()),
            };
        }
        let Some(channel) = self.channel_asked_about(number) else { return Ok(()) };
        match answer {
            Answer::Result(Verdict::SubRefresh(renewal)) => self.renew_subscription(cx, channel, renewal),
            Answer::Disconnect(why) => Err(why),
            _ => Ok(()),
        }
    }

    fn renew(&mut self, cx: &mut Cx<'_>, renewal: Renewal) -> Result<(), Disconnect> {
        let Renewal { lasts: Some(lasts), info, meta } = renewal else { return Err(Disconnect::EXPIRED) };
        let expiry = cx.expiry(lasts, Renewer::BACKEND).map_err(|_| Disconnect::EXPIRED)?;
        self.prolong(cx.shared, expiry);
        self.say_of(cx.shared, info, meta);
        Ok(())
    }

    fn renew_subscription(&mut self, cx: &mut Cx<'_>, channel: LocalId, renewal: Renewal) -> Result<(), Disconnect> {
        let expiry = renewal.lasts.map(|lasts| cx.expiry(lasts, Renewer::BACKEND));
        let Some(Ok(expiry)) = expiry else { return self.end_subscription(cx, channel) };
        self.prolong_subscription(channel, expiry, renewal.info);
        Ok(())
    }

    /// A backend has ended the subscription to a channel meanwhile that it was asked about: the subscribe is refused.
    pub(super) fn refuse_asked(&mut self, cx: &mut Cx<'_>, channel: &str) -> Option<Result<(), Disconnect>> {
        let question = &mut self.waiting.as_mut()?.question;
        let is_it = |due: &mut Box<Due>| matches!(&due.then, Then::Subscribe(request) if request.channel == channel);
        let due = question.take_if(is_it)?;
        self.drop_idle_waiting();
        Some(self.refuse(cx, due.command, &ClientError::PERMISSION_DENIED))
    }
}

/// JSON text, where there is any.
fn json(text: &str) -> Option<Json> {
    (!text.is_empty()).then(|| crate::auth::token::one_line(text))
}

/// What the client is told where the answer is not the one that was hoped for.
fn refusal(answer: Answer) -> Refusal {
    match answer {
        Answer::Error(error) => error.into(),
        Answer::Disconnect(why) => why.into(),
        Answer::Result(_) | Answer::None => ClientError::INTERNAL.into(),
    }
}
