//! What the echo servers have in common: one thread, and a listener like the gateway's.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the kernel queues for us, as many as the gateway asks for.
const BACKLOG: u32 = 4096;

/// Listens on the address in the first argument and spawns `serve` for each connection, all on this thread.
pub fn run<F>(serve: fn(TcpStream) -> F) -> ExitCode
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(address) = std::env::args().nth(1).and_then(|address| address.parse().ok()) else {
        eprintln!("usage: ADDRESS:PORT");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error),
    };
    let served: std::io::Result<()> = runtime.block_on(async {
        let listener = listen(address)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream));
        }
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn complain(error: &std::io::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
