//! What backends publish, made up: the same on every machine, so that ratios of compression can be compared.
//!
//! Four kinds: messages of a chat, ticks of a market, scores of games, and bytes that nothing can shrink.

/// Draws numbers from a seed (SplitMix64): a corpus wants variety, and the same one every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ bits >> 31) % end
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// A kind of publication, and how many of it there are to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// People who talk: 150 to 400 bytes.
    Chat,
    /// Prices: some 130 bytes, of which few change.
    Ticker,
    /// A table of games: some 520 bytes, of which few change.
    Scores,
    /// 300 bytes of noise.
    Noise,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Kind; 4] = [Kind::Chat, Kind::Ticker, Kind::Scores, Kind::Noise];

    /// As it is written in the names of benches.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Chat => "chat",
            Kind::Ticker => "ticker",
            Kind::Scores => "scores",
            Kind::Noise => "noise",
        }
    }

    /// The first `count` publications of one channel, in order.
    pub fn publications(self, count: usize) -> Vec<Vec<u8>> {
        let mut numbers = Numbers(self as u64 + 1);
        (0..count).map(|at| self.publication(at as u64, &mut numbers)).collect()
    }

    fn publication(self, at: u64, numbers: &mut Numbers) -> Vec<u8> {
        match self {
            Kind::Chat => chat(at, numbers).into_bytes(),
            Kind::Ticker => ticker(at, numbers).into_bytes(),
            Kind::Scores => scores(at, numbers).into_bytes(),
            Kind::Noise => (0..300).map(|_| numbers.below(256) as u8).collect(),
        }
    }
}

const WORDS: [&str; 64] = [
    "the", "and", "that", "have", "with", "this", "from", "they", "would", "there", "their", "what", "about", "which",
    "when", "make", "like", "time", "just", "know", "people", "into", "year", "good", "some", "could", "them", "see",
    "other", "than", "then", "look", "only", "come", "over", "think", "also", "back", "after", "work", "first", "well",
    "even", "want", "because", "these", "give", "most", "really", "tonight", "meeting", "coffee", "server", "deploy",
    "branch", "review", "green", "thanks", "sure", "tomorrow", "maybe", "weekend", "train", "late",
];

fn chat(at: u64, numbers: &mut Numbers) -> String {
    let words: Vec<&str> = (0..4 + numbers.below(30)).map(|_| numbers.one_of(&WORDS)).collect();
    let user = numbers.one_of(&["amelia", "bruno", "chidi", "dagmar", "emre", "freya", "giulia", "hiro"]);
    format!(
        "{{\"type\":\"message\",\"id\":\"{:016x}{:016x}\",\"room\":\"general\",\"user\":{{\"id\":{},\"name\":\"{user}\"}},\
         \"text\":\"{}\",\"sent\":\"2026-11-05T09:{:02}:{:02}.{:03}Z\"}}",
        numbers.below(u64::MAX),
        numbers.below(u64::MAX),
        1000 + numbers.below(8),
        words.join(" "),
        at / 60 % 60,
        at % 60,
        numbers.below(1000)
    )
}

fn ticker(at: u64, numbers: &mut Numbers) -> String {
    let bid = 101_250 + numbers.below(500);
    format!(
        "{{\"symbol\":\"ACME\",\"venue\":\"XLON\",\"bid\":{}.{:03},\"ask\":{}.{:03},\"bid_size\":{},\"ask_size\":{},\"sequence\":{},\
         \"time\":17623344{:05}}}",
        bid / 1000,
        bid % 1000,
        (bid + 15) / 1000,
        (bid + 15) % 1000,
        100 * numbers.below(50),
        100 * numbers.below(50),
        880_000 + at,
        at * 37 % 100_000
    )
}

fn scores(at: u64, numbers: &mut Numbers) -> String {
    let sides = ["Rovers", "United", "Athletic", "City", "Wanderers", "Albion", "Rangers", "County", "Town", "Orient"];
    let games: Vec<String> = (0..5)
        .map(|game| {
            format!(
                "{{\"home\":\"{}\",\"away\":\"{}\",\"score\":[{},{}],\"minute\":{},\"corners\":[{},{}],\"state\":\"playing\"}}",
                sides[game * 2],
                sides[game * 2 + 1],
                at / 40 % 5,
                at / 70 % 4,
                at / 6 % 90,
                at / 20 % 9,
                at / 30 % 9
            )
        })
        .collect();
    format!(
        "{{\"round\":14,\"revision\":{},\"viewers\":{},\"games\":[{}]}}",
        at,
        numbers.below(90_000),
        games.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_size_it_says_and_is_the_same_every_time() {
        for (kind, sizes) in Kind::ALL.into_iter().zip([150..=400, 120..=140, 500..=700, 300..=300]) {
            let publications = kind.publications(200);
            assert_eq!(publications, kind.publications(200));
            assert!(publications.iter().all(|p| sizes.contains(&p.len())), "{}", kind.name());
            assert!(publications.windows(2).all(|two| two[0] != two[1]), "{}", kind.name());
        }
    }
}
