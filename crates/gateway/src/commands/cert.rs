//! `tidegate cert`: a certificate for trying TLS out on this machine.

use crate::cli::{CertArgs, EXIT_RUNTIME};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// What every certificate made here is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Some clients take none that is good for longer.
const VALID_DAYS: i64 = 365;

/// Writes a certificate and its key, neither of which may be there already, and says what to do with them.
///
/// # Errors
/// When `out` or `err` cannot be written to.
pub fn run(args: &CertArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let (chain, key) = (args.out.join("cert.pem"), args.out.join("key.pem"));
    let names: Vec<String> = NAMES.iter().map(ToString::to_string).chain(args.names.iter().cloned()).collect();
    let made = make(names).map_err(io::Error::other).and_then(|(chain_pem, key_pem)| {
        // The key first: a certificate without one is of no use.
        create(&key, 0o600, &Zeroizing::new(key_pem))?;
        create(&chain, 0o644, &chain_pem)
    });
    if let Err(error) = made {
        let hint = if error.kind() == io::ErrorKind::AlreadyExists { ": delete it first, or use --out" } else { "" };
        writeln!(err, "error: {error}{hint}")?;
        return Ok(EXIT_RUNTIME);
    }
    let (chain, key) = (absolute(&chain), absolute(&key));
    write!(
        out,
        "wrote {chain}\nwrote {key}\n\n\
         Nobody has signed this certificate: it is for trying TLS out on this machine, for {VALID_DAYS} days.\n\n\
         1. Put this into the config file, then run `tidegate serve --config FILE`:\n\n\
         [tls]\nlisten = [\"127.0.0.1:8443\"]\ncertificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]\n\n\
         2. Ask it:\n\n\
         curl --cacert {chain} https://localhost:8443/health\n\n\
         3. Programs connect to wss://localhost:8443/connection/websocket once they trust the certificate:\n   \
         NODE_EXTRA_CA_CERTS={chain}, SSL_CERT_FILE={chain} for Python. Browsers ask once at the URL above.\n"
    )?;
    Ok(0)
}

fn make(names: Vec<String>) -> Result<(String, String), rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "tidegate development");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64 / 86_400;
    let day = |day: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(day as u64 * 86_400);
    params.not_before = day(today - 1);
    params.not_after = day(today + VALID_DAYS);
    let key = rcgen::KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn create(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
