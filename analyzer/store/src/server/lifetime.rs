//! When the store process may run and when it must end.

use crate::StoreError;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Takes the data directory for this process; freed when the file closes, also when the process dies.
pub(super) fn lock(data: &Path) -> Result<File, StoreError> {
    std::fs::create_dir_all(data)
        .map_err(StoreError::io(format!("cannot make the data directory {}", data.display())))?;
    let path = data.join("wirespan.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(
        StoreError::io(format!("cannot write {} (choose another directory with --data)", path.display())),
    )?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: data.into() }),
        Err(std::fs::TryLockError::Error(e)) => {
            Err(StoreError::io(format!("cannot lock {}", path.display()))(e))
        }
    }
}

/// Completes on SIGTERM, SIGINT or, with `supervised`, when standard input closes.
pub(super) fn stop_signal(supervised: bool) -> Result<impl Future<Output = ()>, StoreError> {
    let handler = |kind| signal(kind).map_err(StoreError::io("cannot handle signals"));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let parent = detach_stdin(supervised)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = parent => {}
        }
    })
}

/// Puts /dev/null in the place of standard input, from which the engine would read the data of an INSERT that has none,
/// and completes when the real one ends.
fn detach_stdin(supervised: bool) -> Result<impl Future<Output = ()>, StoreError> {
    let failed = || StoreError::io("cannot replace standard input");
    let pipe = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed())?;
    let null = File::open("/dev/null").map_err(failed())?;
    // SAFETY: dup2 on two open descriptors; nothing else in this process reads standard input.
    if unsafe { libc::dup2(null.as_raw_fd(), libc::STDIN_FILENO) } < 0 {
        return Err(failed()(std::io::Error::last_os_error()));
    }
    let ended = supervised.then(|| {
        let (ended, end) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let mut pipe = File::from(pipe);
            let mut byte = [0];
            while matches!(pipe.read(&mut byte), Ok(n) if n > 0) {}
            let _ = ended.send(());
        });
        end
    });
    Ok(async move {
        match ended {
            Some(end) => drop(end.await),
            None => std::future::pending().await,
        }
    })
}

/// Tells whoever started this process that queries are answered.
pub(super) fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready http://{address}");
    let _ = out.flush();
}
