//! An echo server on tokio-tungstenite, in the form that its own example has.

use std::process::ExitCode;

use futures_util::{StreamExt, TryStreamExt, future};
use tokio::net::TcpStream;

fn main() -> ExitCode {
    peers_rust::run(echo)
}

async fn echo(stream: TcpStream) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (write, read) = socket.split();
    // `forward` flushes when nothing more is there to read, so that answers to pipelined messages leave together.
    // How a connection ends is the client's affair.
    let _ = read.try_filter(|message| future::ready(message.is_text() || message.is_binary())).forward(write).await;
}
