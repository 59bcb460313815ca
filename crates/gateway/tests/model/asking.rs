//! The backend that workers ask in some worlds: it lets everybody in, gives plain clients what they want, mostly lets others
//! subscribe and publish, and takes its time.

use crate::coverage::Coverage;
use conn::auth::token::{Changed, ConnectionClaims, Lasts, ServerSide};
use conn::webhook::{About, Admission, Answer, Event, Given, Renewal, Rewritten, Verdict, Webhooks};
use gateway::letter::{AskBackend, Letter};
use gateway::mailbox::{Mailbox, Party, Post as _};
use std::time::Duration;

/// It is asked about everything.
pub fn webhooks() -> Webhooks {
    [Event::Connect, Event::Refresh, Event::Subscribe, Event::Publish].into_iter().fold(<_>::default(), Webhooks::with)
}

/// What it thinks about.
#[derive(Default)]
pub struct Backend {
    asked: Vec<(Duration, Party, Box<AskBackend>)>,
}

impl Backend {
    pub fn hear(&mut self, now: Duration, random: &mut fastrand::Rng, worker: Party, ask: Box<AskBackend>) {
        let pause = [0, 1_000, 30_000][random.usize(..3)];
        self.asked.push((now + Duration::from_micros(random.u64(..=pause)), worker, ask));
    }

    /// Answers what it has thought about for long enough. `unix`: the time of the outside world.
    pub fn answer(
        &mut self,
        now: Duration,
        unix: Duration,
        random: &mut fastrand::Rng,
        control: &mut Mailbox,
        coverage: &mut Coverage,
    ) {
        let (due, asked) = std::mem::take(&mut self.asked).into_iter().partition(|(at, ..)| *at <= now);
        self.asked = asked;
        let due: Vec<(Duration, Party, Box<AskBackend>)> = due;
        for (_, worker, ask) in due {
            let AskBackend { conn, number, question } = *ask;
            // Soon enough that connections meet their end, and later than the longest leap of the clock.
            let lasts = Lasts::Until(unix.as_secs() + 10);
            let verdict = match question.about {
                About::Connect { channels, .. } => {
                    let channels = channels.into_iter().map(ServerSide::plain).collect();
                    let claims = ConnectionClaims { user: "u".into(), lasts, info: None, channels };
                    Verdict::Connect(Some(Box::new(Admission { claims, data: None, meta: None })))
                }
                About::Refresh => {
                    coverage.backend_renewed += 1;
                    Verdict::Refresh(Renewal { lasts: Some(lasts), info: None, meta: None })
                }
                About::Subscribe { .. } => Verdict::Subscribe(Given {
                    lasts: Lasts::ForEver,
                    info: None,
                    data: None,
                    changed: Changed::default(),
                }),
                About::Publish { .. } => Verdict::Publish(Rewritten::default()),
                other => unreachable!("nobody is asked about that: {other:?}"),
            };
            let may_fail = matches!(verdict, Verdict::Subscribe(_) | Verdict::Publish(_) | Verdict::Refresh(_));
            let fails = may_fail && random.u32(..8) == 0;
            let answer = Box::new(if fails { Answer::None } else { Answer::Result(verdict) });
            coverage.backend_asked += 1;
            coverage.backend_silent += u64::from(fails);
            control.answer(worker, Letter::BackendAnswered { conn, number, answer });
        }
        control.flush();
    }
}
