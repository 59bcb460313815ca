//! What is in force, reload by reload: another certificate, other limits, other keys; and what must be refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Certificates that take turns.
const CERTIFICATES: usize = 16;

/// One reload of so many brings something that must be refused.
const BAD_EVERY: usize = 8;

/// The key that publishers use throughout.
pub(super) const KEY: &str = "the-key-of-the-publishers";

/// The files that the gateway reads, and what they are made from.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

/// What is wrong with a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    NotToml,
    UnknownKey,
    Contradiction,
    NoCertificate,
    OtherKey,
    DamagedKey,
}

const FAULTS: [Fault; 6] =
    [Fault::NotToml, Fault::UnknownKey, Fault::Contradiction, Fault::NoCertificate, Fault::OtherKey, Fault::DamagedKey];

/// What the reload with this number brings, from 1.
pub(super) fn fault(number: usize) -> Option<Fault> {
    number.is_multiple_of(BAD_EVERY).then(|| FAULTS[number / BAD_EVERY % FAULTS.len()])
}

/// The key of the API that a good reload brings beside [`KEY`].
pub(super) fn key(number: usize) -> String {
    format!("a-key-for-reload-{number}-only")
}

impl Files {
    /// Makes the certificates with the gateway's own command, and the files of a start.
    pub(super) fn make(gateway: &Path, folder: &Path) -> Result<Files, String> {
        let _ = fs::remove_dir_all(folder);
        for number in 0..CERTIFICATES {
            let out = folder.join(number.to_string());
            fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
            crate::run::capture(Command::new(gateway).args(["cert", "--out"]).arg(&out))?;
        }
        let files = Files { folder: folder.to_path_buf() };
        files.bring(0, None)?;
        Ok(files)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("gateway.toml")
    }

    /// The certificate of a good reload.
    pub(super) fn certificate(&self, number: usize) -> PathBuf {
        self.folder.join((number % CERTIFICATES).to_string()).join("cert.pem")
    }

    fn private_key(&self, number: usize) -> PathBuf {
        self.folder.join((number % CERTIFICATES).to_string()).join("key.pem")
    }

    /// Puts into place what the reload with this number is to find.
    pub(super) fn bring(&self, number: usize, fault: Option<Fault>) -> Result<(), String> {
        let read = |path: PathBuf| fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()));
        let (chain, mut private) = (read(self.certificate(number))?, read(self.private_key(number))?);
        match fault {
            Some(Fault::OtherKey) => private = read(self.private_key(number + 1))?,
            Some(Fault::DamagedKey) => private = private.replacen("\n-----END", "*\n-----END", 1),
            _ => {}
        }
        self.replace("chain.pem", &chain)?;
        self.replace("private.pem", &private)?;
        self.replace("gateway.toml", &self.toml(number, fault))
    }

    /// As those who renew certificates do: whoever reads meets the old file or the new one.
    fn replace(&self, name: &str, text: &str) -> Result<(), String> {
        let (new, place) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        let replaced = fs::write(&new, text).and_then(|()| fs::rename(&new, &place));
        replaced.map_err(|e| format!("{}: {e}", place.display()))
    }

    fn toml(&self, number: usize, fault: Option<Fault>) -> String {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let chain = at(if fault == Some(Fault::NoCertificate) { "nowhere.pem" } else { "chain.pem" });
        let private = at("private.pem");
        let (own, level) = (key(number), ["info", "debug"][number % 2]);
        // Everything that a reload may change of what is in use, and a namespace that comes and goes.
        let commands = [0, 10_000][number / 2 % 2];
        let bytes_max = 2 + number % 3;
        let low_water = if fault == Some(Fault::Contradiction) { "3MiB" } else { ["64KiB", "96KiB"][number % 2] };
        let (compression, headers_max) = (number % 4 == 3, 32 + number % 16);
        let namespace = if number.is_multiple_of(3) {
            "[[namespaces]]\nname = \"extra\"\nhistory_size = 10\nhistory_ttl = \"1m\"\n"
        } else {
            ""
        };
        let more = match fault {
            Some(Fault::NotToml) => "[http\n",
            Some(Fault::UnknownKey) => "[drain]\nnotize = \"1s\"\n",
            _ => "",
        };
        format!(
            "[public]\nlisten = [\"127.0.0.1:0\"]\norigins = [\"https://{number}.example.com\"]\n\n\
             [api]\nlisten = [\"127.0.0.1:0\"]\nkeys = [\"{KEY}\", \"{own}\"]\n\n\
             [tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ chain = \"{chain}\", key = \"{private}\" }}]\n\n\
             [workers]\nconnections_max = 18000\n\n[log]\nlevel = \"{level}\"\n\n\
             [client]\nanonymous = true\ncommands_per_second = {commands}\n\n\
             [outbox]\nbytes_max = \"{bytes_max}MiB\"\nlow_water = \"{low_water}\"\n\n\
             [compression]\nenabled = {compression}\n\n[http]\nheaders_max = {headers_max}\n\n\
             [channels]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\n{namespace}\n{more}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_reload_differs_from_the_one_before_and_each_fault_has_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { folder: folder.path().to_path_buf() };
        for number in 1..100 {
            assert_ne!(files.toml(number, None), files.toml(number - 1, None));
            assert_ne!(files.certificate(number), files.certificate(number - 1));
        }
        let seen: HashSet<_> = (1..=1000).filter_map(fault).map(|fault| format!("{fault:?}")).collect();
        assert_eq!(seen.len(), FAULTS.len());
        assert_eq!((1..=1000).filter(|number| fault(*number).is_some()).count(), 125);
    }
}
