//! Sec-WebSocket-Extensions (RFC 6455, 9.1) and what permessage-deflate says in it (RFC 7692, 5 and 7.1).
//!
//! Two things can be wrong with a header. One that breaks the grammar fails the handshake. An offer of
//! permessage-deflate that is well-formed and makes no sense (a parameter unknown, repeated or ill-valued) is only
//! declined: the next offer has its turn, and without any the connection goes on uncompressed.

use super::Role;
use std::fmt;
use std::num::{NonZeroU8, NonZeroU16};

pub(super) const HEADER: &str = "Sec-WebSocket-Extensions";

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The largest window there is, and what counts where nobody says otherwise (7.1.2).
pub const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window that compressors without a zlib header can keep to; the extension knows 8 as well.
const OWN_WINDOW_BITS_MIN: u8 = 9;

/// What a client offers, or a server answers: the parameters of one element of the header.
///
/// As a string it is that element: `Offer::default().to_string() == "permessage-deflate"`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offer {
    /// The server is to forget what it sent before each message (7.1.1.1).
    pub server_no_context_takeover: bool,
    /// The client forgets what it sent before each message (7.1.1.2).
    pub client_no_context_takeover: bool,
    /// How far back the server may refer, as a power of two, 8 to 15 (7.1.2.1).
    pub server_max_window_bits: Option<u8>,
    /// How far back the client may refer (7.1.2.2).
    pub client_max_window_bits: ClientWindow,
}

/// The parameter `client_max_window_bits`, which may come without a value.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ClientWindow {
    /// Not there: the client cannot be told a limit.
    #[default]
    Unsaid,
    /// There without a value: the client takes any limit.
    Any,
    /// A limit, 8 to 15; the server may answer with a lower one.
    Bits(u8),
}

/// What a server wants of its clients' compression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The window asked of clients that take a limit, 8 to 15: so many bits of history are kept of each client that
    /// sends compressed messages. Values outside are taken for the nearest inside.
    pub client_window_bits: u8,
}

impl Default for Policy {
    /// [`crate::limits::CLIENT_WINDOW_BITS`].
    fn default() -> Policy {
        Policy { client_window_bits: crate::limits::CLIENT_WINDOW_BITS }
    }
}

/// What both ends of a connection agreed on, in two bytes.
///
/// As a string it is the server's answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Params(NonZeroU16);

/// What was agreed for one direction, in one byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Direction(NonZeroU8);

/// The header does not follow the grammar (RFC 6455, 9.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Why a server's answer to our offer fails the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unacceptable;

impl Offer {
    /// What a server makes of this offer; `None` declines it.
    fn accept(&self, policy: &Policy) -> Option<Params> {
        let wanted = policy.client_window_bits.clamp(8, WINDOW_BITS_MAX);
        let client_bits = match self.client_max_window_bits {
            ClientWindow::Unsaid => WINDOW_BITS_MAX,
            ClientWindow::Any => wanted,
            ClientWindow::Bits(bits) => bits.min(wanted),
        };
        let server_bits = self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        // zlib and its descendants turn 8 into 9 without a word, which the client could not inflate.
        (server_bits >= OWN_WINDOW_BITS_MIN).then(|| Params::new(self, server_bits, client_bits))
    }

    /// What a client that made this offer makes of the answer (7.1, 7.1.1 and 7.1.2).
    fn agree(&self, answer: &Offer) -> Result<Params, Unacceptable> {
        let offered_bits = self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        let server_bits = match (answer.server_max_window_bits, self.server_max_window_bits) {
            (Some(bits), _) if bits <= offered_bits => bits,
            (None, None) => WINDOW_BITS_MAX,
            // A wider window than was offered, or no word about the one that was.
            _ => return Err(Unacceptable),
        };
        let client_bits = match (answer.client_max_window_bits, self.client_max_window_bits) {
            (ClientWindow::Unsaid, _) => WINDOW_BITS_MAX,
            (ClientWindow::Bits(bits), ClientWindow::Any) => bits,
            (ClientWindow::Bits(bits), ClientWindow::Bits(offered)) if bits <= offered => bits,
            // Not offered, wider than offered, or without the value that an answer must have.
            _ => return Err(Unacceptable),
        };
        if self.server_no_context_takeover && !answer.server_no_context_takeover {
            return Err(Unacceptable);
        }
        Ok(Params::new(answer, server_bits, client_bits))
    }

    /// Adds a parameter; `None` if it is unknown, repeated or ill-valued.
    fn add(&mut self, name: &[u8], value: Option<Value<'_>>) -> Option<()> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is(SERVER_NO_CONTEXT_TAKEOVER) {
            set_flag(&mut self.server_no_context_takeover, value)
        } else if is(CLIENT_NO_CONTEXT_TAKEOVER) {
            set_flag(&mut self.client_no_context_takeover, value)
        } else if is(SERVER_MAX_WINDOW_BITS) {
            let bits = value?.window_bits()?;
            self.server_max_window_bits.replace(bits).is_none().then_some(())
        } else if is(CLIENT_MAX_WINDOW_BITS) {
            let window = match value {
                None => ClientWindow::Any,
                Some(value) => ClientWindow::Bits(value.window_bits()?),
            };
            let before = std::mem::replace(&mut self.client_max_window_bits, window);
            (before == ClientWindow::Unsaid).then_some(())
        } else {
            None
        }
    }
}

/// A parameter without a value, which may come once.
fn set_flag(flag: &mut bool, value: Option<Value<'_>>) -> Option<()> {
    (value.is_none() && !std::mem::replace(flag, true)).then_some(())
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_no_context_takeover {
            write!(f, "; {SERVER_NO_CONTEXT_TAKEOVER}")?;
        }
        if self.client_no_context_takeover {
            write!(f, "; {CLIENT_NO_CONTEXT_TAKEOVER}")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; {SERVER_MAX_WINDOW_BITS}={bits}")?;
        }
        match self.client_max_window_bits {
            ClientWindow::Unsaid => Ok(()),
            ClientWindow::Any => write!(f, "; {CLIENT_MAX_WINDOW_BITS}"),
            ClientWindow::Bits(bits) => write!(f, "; {CLIENT_MAX_WINDOW_BITS}={bits}"),
        }
    }
}

impl Params {
    const SERVER_FORGETS: u16 = 1 << 8;
    const CLIENT_FORGETS: u16 = 1 << 9;
    /// The answer must name a window that the offer named, be it the widest.
    const NAMES_SERVER_BITS: u16 = 1 << 10;

    fn new(said: &Offer, server_bits: u8, client_bits: u8) -> Params {
        let mut packed = u16::from(server_bits) | u16::from(client_bits) << 4;
        let flags = [
            (said.server_no_context_takeover, Params::SERVER_FORGETS),
            (said.client_no_context_takeover, Params::CLIENT_FORGETS),
            (said.server_max_window_bits.is_some(), Params::NAMES_SERVER_BITS),
        ];
        for (_, flag) in flags.into_iter().filter(|(is_set, _)| *is_set) {
            packed |= flag;
        }
        Params(NonZeroU16::new(packed).expect("a window has at least 8 bits"))
    }

    /// What holds for the messages that `role` receives.
    pub fn incoming(self, role: Role) -> Direction {
        match role {
            Role::Server => Direction::new((self.0.get() >> 4 & 15) as u8, self.has(Params::CLIENT_FORGETS)),
            Role::Client => Direction::new((self.0.get() & 15) as u8, self.has(Params::SERVER_FORGETS)),
        }
    }

    /// What holds for the messages that `role` sends.
    pub fn outgoing(self, role: Role) -> Direction {
        self.incoming(match role {
            Role::Server => Role::Client,
            Role::Client => Role::Server,
        })
    }

    fn has(self, flag: u16) -> bool {
        self.0.get() & flag != 0
    }

    /// The server's answer. A window that was not offered is not named, and no flag is set unasked.
    fn answer(self) -> Offer {
        let (server, client) = (self.outgoing(Role::Server), self.incoming(Role::Server));
        Offer {
            server_no_context_takeover: server.forgets(),
            client_no_context_takeover: client.forgets(),
            server_max_window_bits: self.has(Params::NAMES_SERVER_BITS).then(|| server.window_bits()),
            client_max_window_bits: match client.window_bits() {
                WINDOW_BITS_MAX => ClientWindow::Unsaid,
                bits => ClientWindow::Bits(bits),
            },
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.answer().fmt(f)
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Params({self})")
    }
}

impl Direction {
    const FORGETS: u8 = 1 << 4;

    fn new(window_bits: u8, forgets: bool) -> Direction {
        let flag = if forgets { Direction::FORGETS } else { 0 };
        Direction(NonZeroU8::new(window_bits | flag).expect("a window has at least 8 bits"))
    }

    /// How far back a message may refer, as a power of two.
    pub fn window_bits(self) -> u8 {
        self.0.get() & 15
    }

    /// Whether each message stands alone (`no_context_takeover`).
    pub fn forgets(self) -> bool {
        self.0.get() & Direction::FORGETS != 0
    }

    /// The most bytes that the receiver keeps of what it received.
    pub fn history_bytes_max(self) -> usize {
        // Some compressors that agreed on 8 bits use 9, so nobody gets less than what is cheap anyway.
        if self.forgets() { 0 } else { 1 << self.window_bits().max(crate::limits::CLIENT_WINDOW_BITS) }
    }
}

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forgets = if self.forgets() { ", forgets" } else { "" };
        write!(f, "Direction({} bits{forgets})", self.window_bits())
    }
}

/// What a server agrees to of the offers in these headers, the first one it can; `None`: no compression.
pub(super) fn negotiate<'v>(
    values: impl Iterator<Item = &'v [u8]>,
    policy: &Policy,
) -> Result<Option<Params>, Malformed> {
    let mut chosen = None;
    for value in values {
        each(value, |element| {
            if let Element::Deflate(offer) = element
                && chosen.is_none()
            {
                chosen = offer.accept(policy);
            }
        })?;
    }
    Ok(chosen)
}

/// What a client that offered `offer` agrees to, given the headers of the answer; `None`: no compression.
pub(super) fn agree<'v>(values: impl Iterator<Item = &'v [u8]>, offer: &Offer) -> Result<Option<Params>, Unacceptable> {
    let mut agreed = None;
    let mut is_good = true;
    for value in values {
        each(value, |element| match (element, agreed) {
            (Element::Deflate(answer), None) => match offer.agree(&answer) {
                Ok(params) => agreed = Some(params),
                Err(Unacceptable) => is_good = false,
            },
            // Accepted twice, makes no sense, or was never offered.
            _ => is_good = false,
        })
        .map_err(|Malformed| Unacceptable)?;
    }
    if is_good { Ok(agreed) } else { Err(Unacceptable) }
}

/// One element of the header.
enum Element {
    /// permessage-deflate with parameters that make sense.
    Deflate(Offer),
    /// permessage-deflate with others, or another extension.
    Other,
}

/// Parses one value of the header and hands out its elements in order. Empty elements are skipped, as in every
/// list of HTTP (RFC 9110, 5.6.1.2).
fn each(value: &[u8], mut visit: impl FnMut(Element)) -> Result<(), Malformed> {
    let mut cursor = Cursor { rest: value };
    loop {
        cursor.skip_space();
        if cursor.rest.is_empty() {
            return Ok(());
        }
        if !cursor.take(b',') {
            visit(element(&mut cursor)?);
            cursor.skip_space();
            if !cursor.rest.is_empty() && !cursor.take(b',') {
                return Err(Malformed);
            }
        }
    }
}

/// A name and its parameters.
fn element(cursor: &mut Cursor<'_>) -> Result<Element, Malformed> {
    let is_ours = cursor.token()?.eq_ignore_ascii_case(NAME.as_bytes());
    let mut offer = is_ours.then(Offer::default);
    loop {
        cursor.skip_space();
        if !cursor.take(b';') {
            return Ok(offer.map_or(Element::Other, Element::Deflate));
        }
        cursor.skip_space();
        let name = cursor.token()?;
        cursor.skip_space();
        let value = if cursor.take(b'=') {
            cursor.skip_space();
            Some(cursor.value()?)
        } else {
            None
        };
        offer = offer.and_then(|mut offer| offer.add(name, value).map(|()| offer));
    }
}

/// What is left of a header value.
struct Cursor<'v> {
    rest: &'v [u8],
}

/// A parameter's value: a token, or the inside of a quoted string that means one.
#[derive(Clone, Copy)]
struct Value<'v>(&'v [u8]);

impl<'v> Cursor<'v> {
    fn skip_space(&mut self) {
        let space = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.rest = &self.rest[space..];
    }

    /// Whether `byte` is next; then it is taken.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        self.rest = &self.rest[usize::from(is_next)..];
        is_next
    }

    fn token(&mut self) -> Result<&'v [u8], Malformed> {
        let len = self.rest.iter().take_while(|&&byte| is_token_byte(byte)).count();
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    fn value(&mut self) -> Result<Value<'v>, Malformed> {
        if !self.take(b'"') {
            return self.token().map(Value);
        }
        let text = self.rest;
        let mut len = 0;
        loop {
            // What is quoted must be a token once it is unquoted (RFC 6455, 9.1).
            let escaped = usize::from(text.get(len) == Some(&b'\\'));
            match text.get(len + escaped) {
                Some(b'"') if escaped == 0 && len > 0 => break,
                Some(&byte) if is_token_byte(byte) => len += escaped + 1,
                _ => return Err(Malformed),
            }
        }
        self.rest = &text[len + 1..];
        Ok(Value(&text[..len]))
    }
}

impl Value<'_> {
    /// 8 to 15, in decimal without leading zeros.
    fn window_bits(self) -> Option<u8> {
        // No token has a backslash, so every one of them escapes what follows.
        let mut digits = self.0.iter().filter(|&&byte| byte != b'\\');
        let bits = match (digits.next()?, digits.next()) {
            (&digit @ b'8'..=b'9', None) => digit - b'0',
            (b'1', Some(&digit @ b'0'..=b'5')) => 10 + digit - b'0',
            _ => return None,
        };
        digits.next().is_none().then_some(bits)
    }
}

/// What a token is made of (RFC 9110, 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
