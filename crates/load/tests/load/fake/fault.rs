//! What can be wrong with a server.

/// A fault of the server's. Where it needs one message, it is number three unless said otherwise; the victim is the first
/// client.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Fault {
    /// All is well.
    #[default]
    None,
    /// The message is not delivered.
    Drop,
    /// The message is delivered twice.
    Duplicate,
    /// The message is delivered after the next one.
    Swap,
    /// All messages of its publisher are held back until one of another publisher was delivered, so that each publisher's own
    /// order is kept.
    SwapPublishers,
    /// The message is delivered to a subscriber of another channel too.
    Misdeliver,
    /// The last letter of the message is another.
    Corrupt,
    /// The client is closed with 3008 instead.
    Close,
    /// The client is unsubscribed with 2500 instead.
    Unsubscribe,
    /// The client's upgrade is answered with 503.
    RefuseUpgrade,
    /// The client's upgrade is not answered.
    Silent,
    /// The client's first subscription is answered with error 103.
    RefuseSubscribe,
    /// Clients without a dialect are pinged every few milliseconds, which is no fault; the victim is not.
    ForgetPings,
    /// The client's close frame is not answered; the connection is closed.
    AbruptClose,
    /// The API answers the publication with error 100, and does not publish it.
    RefusePublication,
    /// The API closes its connection instead of answering, having published to nobody, to all, or to all but the victim.
    LoseAnswer(Reaches),
}

/// Who gets a publication that is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reaches {
    Nobody,
    All,
    AllButVictim,
}
