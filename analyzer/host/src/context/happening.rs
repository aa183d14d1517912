//! What the context engine is told, in the order of time.

/// A process that is never mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Thread group id, in the initial pid namespace.
    pub tgid: u32,
    /// When it began, ns of CLOCK_BOOTTIME.
    pub start_ns: u64,
}

/// For how long a thread was ready to wait for something to do (epoll, poll, select).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// It was not told.
    #[default]
    Unknown,
    /// Not at all: it has more to do, and looked what else there is.
    Look,
    /// Milliseconds: something is to be done then.
    Until(u32),
    /// For ever: nothing is left to do.
    Forever,
    /// It did not: it does what its timers are for, a turn of its own. A thread that was told once is told of each.
    Timers,
}

/// Who did something, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The process.
    pub process: ProcessKey,
    /// The thread, in the initial pid namespace.
    pub tid: u32,
    /// Waits of this thread so far.
    pub turn: u32,
    /// How long the last of them was to last at most.
    pub wait: Wait,
    /// The HTTP/2 stream, of the connection that brought the last bytes, which the thread hands over bytes of; 0 where that is not known.
    pub stream: u32,
    /// Goroutine; 0 for none.
    pub coroutine: u64,
    /// When, ns of CLOCK_BOOTTIME: sends count from when the call began, receives from when it ended.
    pub time_ns: u64,
    /// Events of this thread so far.
    pub thread_event: u32,
}

/// What happened. Span ids are those of the host; `conn` is [`wirespan_event::Header::conn`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happening<'a> {
    /// Bytes went through a connection; told of every data event, before the messages that it completes.
    Data {
        /// Connection.
        conn: u64,
        /// Received; else sent.
        ingress: bool,
        /// Others are missing that belong before them: late ones, or lost ones.
        ahead: bool,
    },
    /// The head of a request to this process is complete.
    ServerRequest {
        /// Id of the server span.
        span: u64,
        /// Connection that it came on.
        conn: u64,
        /// What it brings is answered beside each other, as in HTTP/2.
        beside: bool,
        /// Its stream, in HTTP/2; else 0.
        stream: u32,
        /// W3C, SkyWalking or b3 trace id in its headers.
        trace_id: Option<&'a str>,
        /// x-request-id in its headers.
        x_request_id: Option<&'a str>,
    },
    /// The head of a request that this process makes is complete.
    ClientRequest {
        /// Id of the client span.
        span: u64,
        /// Connection that it goes out on.
        conn: u64,
        /// Its stream, in HTTP/2; else 0.
        stream: u32,
        /// Stands for the other end's address and port, as a hash.
        peer: u64,
        /// When its first byte was sent, and by whom; the moment of the happening is that of the last byte of its head.
        began: Moment,
        /// W3C, SkyWalking or b3 trace id in its headers.
        trace_id: Option<&'a str>,
        /// x-request-id in its headers.
        x_request_id: Option<&'a str>,
    },
    /// This thread begins a request, which is sent later, when nothing tells any more what it is for.
    Begins {
        /// Address of the HTTP/2 session that it will go out on.
        session: u64,
        /// The session's connection, unless nothing came on it yet.
        conn: Option<u64>,
        /// Its stream.
        stream: u32,
    },
    /// Something came on an HTTP/2 session for the first time.
    Carries {
        /// Address of the session.
        session: u64,
        /// Its connection.
        conn: u64,
    },
    /// This thread sends what was begun on an HTTP/2 session that nothing came on yet: the next bytes that it sends are those, if
    /// there are any.
    Sends {
        /// Address of the session.
        session: u64,
    },
    /// This goroutine asks for a stream of HTTP/2 and has another one write the request, which does that for all.
    Queues {
        /// The goroutine that writes, all that goes out on one connection.
        writer: u64,
        /// Its stream.
        stream: u32,
    },
    /// This goroutine reads all that comes on an HTTP/2 session, for those that answer.
    Reads {
        /// Address of the session.
        session: u64,
    },
    /// This goroutine begins to answer a request, which another one read.
    Answers {
        /// Address of the HTTP/2 session that it came on.
        session: u64,
        /// Its stream.
        stream: u32,
    },
    /// The head of the response to the client span was received.
    ClientResponse {
        /// Id of the client span.
        span: u64,
    },
    /// The response to the client span was received to its end. Told where responses come beside each other, as in HTTP/2.
    ClientDone {
        /// Id of the client span.
        span: u64,
    },
    /// The head of the response to the server span was sent.
    ServerResponse {
        /// Id of the server span.
        span: u64,
    },
    /// No response to this span, client or server, will be heard any more.
    Over {
        /// Id of the span.
        span: u64,
    },
    /// This thread connected, or began to.
    Connect {
        /// The new connection.
        conn: u64,
    },
    /// This thread found nothing to read on an open connection that another had read from.
    Look {
        /// The connection.
        conn: u64,
    },
    /// This thread accepted.
    Accept {
        /// The new connection.
        conn: u64,
    },
    /// Events of a connection were lost.
    Gap {
        /// The connection.
        conn: u64,
    },
    /// Requests to this process may be open that came on this connection and were not seen. Told whenever some may have been
    /// lost, behind those that came with the same event, and when all are answered.
    Unseen {
        /// The connection.
        conn: u64,
        /// There may be such a request.
        open: bool,
    },
    /// Bytes of a connection on which requests may come wait for others that are missing: late ones, or lost ones.
    Held {
        /// The connection.
        conn: u64,
        /// They do; else not any more.
        held: bool,
    },
    /// The head of a response was sent to a request that was not seen.
    UnseenResponse {
        /// The connection.
        conn: u64,
    },
    /// The head of a response was received to a request that was not seen.
    UnseenAnswer,
    /// Requests that this process makes may have gone out and were not seen.
    UnseenCalls,
    /// The connection is over.
    Close {
        /// The connection.
        conn: u64,
    },
    /// This thread, or its goroutine, made another one of the same process go on.
    Wake {
        /// The other thread; 0 when only its goroutine is known.
        tid: u32,
        /// The other goroutine; 0 for none.
        coroutine: u64,
        /// Futex that the other thread waited for; 0 for anything else, or if it was not told.
        futex: u64,
        /// It would have waited for a limited time only.
        timed: bool,
    },
    /// This thread, or its goroutine, made another one of the same process.
    Fork {
        /// The new thread; 0 when only the goroutine is new.
        tid: u32,
        /// The new goroutine; 0 for none.
        coroutine: u64,
        /// Stands for the place in the program; 0 if it was not told.
        place: u32,
    },
    /// This thread, or its coroutine, put work into a queue.
    Put {
        /// No other item has this number while it is there.
        item: u64,
    },
    /// This thread took work from a queue.
    Take {
        /// As it was put there.
        item: u64,
    },
    /// Events of this thread were lost, it is not known which.
    Lost,
    /// The thread ended; the process, when it is its first thread.
    Exit,
    /// The process is another program now.
    Exec,
}

impl Happening<'_> {
    /// Something is over: of a process that is not known, it tells nothing.
    pub(crate) fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Over { .. }
                | Self::Close { .. }
                | Self::Gap { .. }
                | Self::Unseen { open: false, .. }
                | Self::Held { held: false, .. }
                | Self::Exit
        )
    }
}
