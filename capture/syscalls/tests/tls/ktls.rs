//! OpenSSL that leaves encryption to the kernel.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

use wirespan_event::{Flags, Kind, Source};

use crate::watch::{Heard, needs};
use crate::{before_and_after, certificate, http_request, output_of, peer, spawn};

/// Whether the kernel encrypts; says so where it does not.
fn has_ktls() -> bool {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let fd = stream.as_raw_fd();
    // SAFETY: the name lives as long as the call, and has this length.
    let set = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_ULP, c"tls".as_ptr().cast(), 3) };
    if set != 0 {
        eprintln!("skipped: this kernel has no TLS: {}", std::io::Error::last_os_error());
    }
    set == 0
}

/// What a process said, or was told, that has `text` in it.
fn told(heard: &[Heard], tgid: u32, text: &str) -> Vec<Heard> {
    heard.iter().filter(|heard| heard.header.tgid == tgid && heard.has(text)).cloned().collect()
}

/// The kernel encrypted on the socket that `plain` went through.
fn is_encrypted(heard: &[Heard], plain: &Heard) -> bool {
    heard.iter().any(|heard| {
        let Heard { header, .. } = heard;
        header.source() == Some(Source::Syscall)
            && header.conn == plain.header.conn
            && header.flags.has(Flags::KTLS)
    })
}

/// Plaintext goes through the socket too.
#[test]
fn what_the_kernel_encrypts_is_told_once() {
    needs!("openssl", "python3");
    if !has_ktls() {
        return;
    }
    let directory = certificate();
    before_and_after(
        |port| {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(peer("server.py")).args([&port.to_string(), "ktls"]);
            spawn(command.current_dir(&directory))
        },
        |watch, server, port| {
            let path = format!("/request-of-{port}");
            let mut command = Command::new("/usr/bin/python3");
            command.arg(peer("client.py")).args([&port.to_string(), &path, "ktls"]);
            let client = http_request(&mut command);
            let ends = [server.0.id(), client.0.id()];
            let said = [&path, "answer-of-python"];
            assert!(output_of(client).contains("answer-of-python"));
            watch.until("both ends, both directions", |heard| {
                ends.iter().all(|end| said.iter().all(|text| !told(heard, *end, text).is_empty()))
            });
            watch.look();
            for (end, text) in ends.iter().flat_map(|end| said.map(|text| (*end, text))) {
                let [once] = &told(&watch.heard, end, text)[..] else { panic!("{text} is told once") };
                assert_eq!(once.header.source(), Some(Source::OpenSsl));
                assert!(is_encrypted(&watch.heard, once));
            }
        },
    );
}

/// Else a response of a file would seem to go on with the next one.
#[test]
fn a_file_that_the_kernel_encrypts_has_its_length() {
    needs!("openssl", "nginx", "curl");
    if !has_ktls() {
        return;
    }
    const LENGTH: usize = 30_000;
    let directory = certificate();
    std::fs::write(directory.path().join("file"), [b'x'; LENGTH]).unwrap();
    before_and_after(
        |port| {
            let at = directory.path().display();
            let config = format!(
                "daemon off; master_process off; user root; pid {at}/pid; error_log stderr;
                 events {{}}
                 http {{
                     access_log off; sendfile on;
                     server {{
                         listen 127.0.0.1:{port} ssl; root {at};
                         ssl_certificate cert.pem; ssl_certificate_key key.pem;
                         ssl_conf_command Options KTLS;
                     }}
                 }}"
            );
            std::fs::write(directory.path().join("nginx.conf"), config).unwrap();
            spawn(Command::new("nginx").args(["-e", "stderr", "-c"]).arg(directory.path().join("nginx.conf")))
        },
        |watch, server, port| {
            let url = format!("https://127.0.0.1:{port}/file");
            let client = http_request(Command::new("curl").args(["-sSk", "--max-time", "60", &url, &url]));
            assert_eq!(output_of(client).trim_end().len(), 2 * LENGTH);
            let tgid = server.0.id();
            let head = "HTTP/1.1 200 OK";
            watch.until("both responses", |heard| told(heard, tgid, head).len() == 2);
            watch.look();
            let [first, second] = &told(&watch.heard, tgid, head)[..] else { unreachable!() };
            assert!(is_encrypted(&watch.heard, first));
            assert_eq!(first.header.tls, second.header.tls, "one session");
            let sent = watch.heard.iter().filter(|heard| {
                let Heard { header, .. } = heard;
                (header.kind(), header.tls, header.tgid) == (Some(Kind::Data), first.header.tls, tgid)
                    && !header.is_ingress()
            });
            let lengths: Vec<(usize, bool)> = sent
                .filter(|heard| !heard.has(head))
                .map(|heard| (heard.header.length as usize, heard.header.flags.has(Flags::NO_DATA)))
                .collect();
            assert!(lengths.iter().all(|(_, no_data)| *no_data), "{lengths:?}");
            assert_eq!(lengths.iter().map(|(length, _)| length).sum::<usize>(), 2 * LENGTH);
        },
    );
}
