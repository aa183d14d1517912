//! The calls that are timed.

use anyhow::Context;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};

/// Rounds of a call that are timed together.
pub const AT_ONCE: u32 = 1_000;
const MESSAGE: usize = 512;

/// Something to time.
pub struct Call {
    pub name: &'static str,
    /// Makes so many rounds.
    pub make: Box<dyn FnMut(u32) -> std::io::Result<()>>,
    /// Calls of a round.
    pub calls: u32,
}

/// A call that is not traced, one that is rejected, and those that make an event.
pub fn all() -> anyhow::Result<Vec<Call>> {
    Ok(vec![unrelated(), plain_file()?, loopback()?])
}

fn unrelated() -> Call {
    let make = |rounds| {
        for _ in 0..rounds {
            std::hint::black_box(nix::unistd::getppid());
        }
        Ok(())
    };
    Call { name: "getppid", make: Box::new(make), calls: 1 }
}

fn plain_file() -> anyhow::Result<Call> {
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    file.write_all(&vec![1; MESSAGE * AT_ONCE as usize]).context("cannot write a temporary file")?;
    let mut buffer = [0; MESSAGE];
    let make = move |rounds| {
        file.rewind()?;
        (0..rounds).try_for_each(|_| File::read_exact(&mut file, &mut buffer))
    };
    Ok(Call { name: "read of a plain file, 512 B", make: Box::new(make), calls: 1 })
}

fn loopback() -> anyhow::Result<Call> {
    let (mut client, mut server) = connection()?;
    let mut buffer = [b'x'; MESSAGE];
    let make = move |rounds| {
        // The other way at times: a message that never ends has its payload left out.
        let (from, to) = (&mut client, &mut server);
        for round in 0..rounds {
            let (from, to) = if round % 2 == 0 { (&mut *from, &mut *to) } else { (&mut *to, &mut *from) };
            from.write_all(&buffer)?;
            to.read_exact(&mut buffer)?;
        }
        Ok(())
    };
    Ok(Call { name: "loopback TCP send or receive, 512 B", make: Box::new(make), calls: 2 })
}

/// Both ends of a connection over loopback.
pub fn connection() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on loopback")?;
    let client = TcpStream::connect(listener.local_addr()?).context("cannot connect on loopback")?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    Ok((client, server))
}
