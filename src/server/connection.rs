//! One connection: the task that moves bytes between its socket and its outbox.

use std::{
    future::Future,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep, timeout},
};

use crate::{
    auth::BoxFuture,
    broker::{Admission, Cause, Misbehaviour, Outputs, Shard},
    codec::{self, Decoded, Packet, ReasonCode, Version},
    net::{Peer, Stream},
    session::LinkId,
    time::Timestamp,
};

use super::{
    cell::ShardCell,
    handshake::{self, Arrival},
    listen::Entry,
    mailbox::FORWARDED_MAX,
    reauthentication::{Outcome, Reauthentication},
};

/// Time that a connection which is being closed has to take what is still for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that a client has to close its side after ours is closed. If it has more to say, the system would
/// answer with a reset that may overtake our last packet.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are thrown away while lingering.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Reads of a full buffer in a row before other connections have their turn.
const READS_MAX: usize = 4;

/// Connections that may write what one read has set off for them before the one that was read writes itself.
const FIRST_MAX: u64 = 4;

/// Bytes kept free before what is read, for the beginning of a packet that came with the last read.
const KEPT_BYTES: usize = 8 * 1024;

/// Chunks of an outbox in one write.
const SLICES: usize = 16;

/// Starts the task of a connection whose session is on this shard.
#[expect(clippy::disallowed_methods, reason = "the shell has tasks")]
pub(crate) fn start(cell: &Rc<ShardCell>, arrival: Arrival) {
    let Arrival { mut stream, bytes, client_id, is_assigned, principal, authentication_data, door, entry } =
        arrival;
    if stream.attach().is_err() || cell.is_stopping.get() {
        return;
    }
    let packet_bytes_max = cell.common.packet_bytes_max();
    let Ok(Decoded::Packet(Packet::Connect(connect), len)) =
        codec::decode(&bytes, Version::V5, packet_bytes_max)
    else {
        debug_assert!(false, "the handshake lets nothing but CONNECT through");
        return;
    };
    let user = principal.user.clone();
    let admission = Admission {
        connect: &connect,
        assigned_client_id: is_assigned.then_some(&*client_id),
        principal,
        peer: stream.peer().to_string().into(),
        is_local: matches!(stream.peer(), Peer::Memory),
        durability: door.durability,
        authentication_data: authentication_data.as_deref(),
    };
    let present = Present::new(cell);
    match cell.turn(|shard, now, out| shard.connect(now, &admission, out)) {
        Ok(id) => {
            let authentication = Reauthentication::new(&connect, &client_id, user, &stream, &door);
            let connection = Connection {
                id,
                version: connect.version,
                is_flushed: true,
                packet_bytes_max,
                partial: Partial::of(&bytes[len..], 0),
                authentication: authentication.map(Authentication::Idle),
                closing: None,
                parked: 0,
                present,
            };
            tokio::task::spawn_local(Drive::Open(connection, stream, entry));
        }
        Err(refusal) => {
            cell.look(|shard| shard.counters().connects_refused.add(1));
            tracing::info!(target: "dunlin::connection", client = %client_id, code = %refusal.code, "refused: {}", refusal.why);
            let answer = handshake::refusal(&connect, &refusal);
            tokio::task::spawn_local(turn_away(stream, answer, entry, present));
        }
    }
}

/// Counts the task of a connection for as long as it is kept.
struct Present(Rc<ShardCell>);

impl Present {
    fn new(cell: &Rc<ShardCell>) -> Present {
        cell.connections.set(cell.connections.get() + 1);
        Present(cell.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.emptied.notify_one();
    }
}

/// Tells a client that it is refused, and closes.
async fn turn_away(mut stream: Stream, answer: Vec<u8>, entry: Entry, present: Present) {
    if let Ok(Ok(())) = timeout(CLOSE_TIMEOUT, send(&mut stream, &answer)).await {
        linger(&mut stream).await;
    }
    drop((entry, present));
}

/// Drives a connection to its end. Not an `async fn`: what that needs for the end would take memory, several times that
/// of the connection, in all that are idle.
enum Drive {
    Open(Connection, Stream, Entry),
    /// The end, which lets the rest go.
    Lingering(Pin<Box<dyn Future<Output = ()>>>),
    Over,
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let drive = self.get_mut();
        if let Drive::Open(connection, stream, _) = drive {
            let cause = ready!(connection.poll(cx, stream));
            drive.close(cause);
        }
        match drive {
            Drive::Lingering(end) => end.as_mut().poll(cx),
            Drive::Open(..) | Drive::Over => Poll::Ready(()),
        }
    }
}

impl Drive {
    /// The connection is over.
    fn close(&mut self, cause: Cause) {
        let Drive::Open(connection, mut stream, entry) = mem::replace(self, Drive::Over) else { return };
        let Connection { id, present, .. } = connection;
        let cell = &present.0;
        let is_ours = cell.look(|shard| !shard.is_open(id));
        cell.closed(id, cause);
        if is_ours {
            *self = Drive::Lingering(Box::pin(async move {
                linger(&mut stream).await;
                drop((entry, present));
            }));
        }
    }
}

/// Sends bytes to the last.
pub(crate) async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Closes our side and waits a little for the client to close its own. `[MQTT-3.14.4-2]`
pub(crate) async fn linger(stream: &mut Stream) {
    let _: Result<(), _> = timeout(LINGER_TIMEOUT, async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut thrown = 0;
        let mut buffer = [0; 512];
        while let Ok(count) = stream.read(&mut buffer).await {
            thrown += count;
            if count == 0 || thrown > LINGER_BYTES_MAX {
                break;
            }
        }
    })
    .await;
}

struct Connection {
    id: LinkId,
    version: Version,
    /// False if TLS or WebSocket may hold bytes back.
    is_flushed: bool,
    packet_bytes_max: u32,
    partial: Option<Box<Partial>>,
    /// Set if the client authenticated by AUTH packets: it may do so again.
    authentication: Option<Authentication>,
    /// Set when the connection is being closed, or broken.
    closing: Option<Box<Closing>>,
    /// When it last began to wait for room in the mailboxes.
    parked: u64,
    present: Present,
}

/// Enhanced authentication on a connection that is up.
enum Authentication {
    Idle(Box<Reauthentication>),
    /// A step is being decided; nothing is read meanwhile.
    UnderWay(Box<BoxFuture<'static, (Box<Reauthentication>, Outcome)>>),
}

/// How far the end of a connection is.
#[derive(Default)]
struct Closing {
    /// When to give up on what is still to be written.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Why nothing can be written any more, once that is so.
    broken: Option<String>,
}

/// What was read and is not heard: the beginning of a packet that is not complete, mostly.
struct Partial {
    bytes: Vec<u8>,
    /// Length of the whole packet once known, else 0.
    whole: usize,
}

impl Partial {
    fn of(bytes: &[u8], whole: usize) -> Option<Box<Partial>> {
        (!bytes.is_empty()).then(|| Box::new(Partial { bytes: bytes.to_vec(), whole }))
    }
}

/// What a chunk of received bytes came to.
struct Heard {
    consumed: usize,
    /// Length of the packet that is not complete, if known.
    whole: usize,
}

impl Connection {
    /// Moves what can be moved. Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<Cause> {
        self.cell().set_waker(self.id, cx);
        let mut reads = 0;
        loop {
            if !self.is_broken()
                && let Err(error) = self.write(cx, stream)
            {
                // What the client sent before it went may still be there to read: a DISCONNECT, perhaps.
                self.closing.get_or_insert_default().broken = Some(error.to_string());
            }
            if let Some(poll) = self.poll_close(cx) {
                return poll;
            }
            if let Some(Authentication::UnderWay(authenticating)) = &mut self.authentication {
                let (state, outcome) = ready!(authenticating.as_mut().as_mut().poll(cx));
                self.conclude(state, &outcome);
                continue;
            }
            if !self.is_broken() && !self.cell().look(|shard| shard.may_read(self.id)) {
                return Poll::Pending;
            }
            let Connection { present, parked, .. } = self;
            ready!(present.0.common.mailboxes.poll_room(parked, cx));
            if self.hear_kept() {
                continue;
            }
            if reads == READS_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            let woken = self.cell().woken();
            match ready!(self.read(cx, stream)) {
                Ok(1..) if (1..=FIRST_MAX).contains(&(self.cell().woken() - woken)) => {
                    // A message reaches its few receivers before its publisher gets the acknowledgement.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(0) => return Poll::Ready(self.take_broken().map_or(Cause::Eof, Cause::Io)),
                Ok(_) => {}
                Err(error) => {
                    let error = self.take_broken().unwrap_or_else(|| error.to_string());
                    return Poll::Ready(Cause::Io(error));
                }
            }
        }
    }

    fn cell(&self) -> &Rc<ShardCell> {
        &self.present.0
    }

    fn is_broken(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.broken.is_some())
    }

    fn take_broken(&mut self) -> Option<String> {
        self.closing.as_mut()?.broken.take()
    }

    /// Hears what was read and not heard: behind CONNECT, behind an AUTH that is decided now, or behind what
    /// had to be seen to first. False if there is no such thing.
    fn hear_kept(&mut self) -> bool {
        let is_authenticating = matches!(self.authentication, Some(Authentication::UnderWay(_)));
        let Some(kept) = self.partial.take_if(|kept| kept.whole == 0 && !is_authenticating) else {
            return false;
        };
        self.cell().read_mail();
        self.hear_and_keep(&kept.bytes);
        true
    }

    /// Writes what the outbox holds, as far as the socket takes it, and lets the session fill it again.
    fn write(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> io::Result<()> {
        loop {
            let written = self.cell().look(|shard| match shard.outbox(self.id) {
                Some(outbox) if outbox.ready() > 0 => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let poll = if outbox.is_scattered() {
                        let filled = outbox.chunks(&mut slices);
                        Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..filled])
                    } else {
                        Pin::new(&mut *stream).poll_write(cx, outbox.chunk())
                    };
                    if let Poll::Ready(Ok(count)) = &poll {
                        outbox.advance(*count);
                        shard.counters().bytes_sent.add(*count as u64);
                    }
                    poll
                }
                Some(_) | None => Poll::Ready(Ok(0)),
            })?;
            match written {
                Poll::Ready(0) => break,
                Poll::Ready(_) => {
                    self.is_flushed = false;
                    self.cell().turn_of(self.id, |shard, now, out| shard.drained(now, self.id, out));
                }
                Poll::Pending => break,
            }
        }
        if !self.is_flushed && Pin::new(stream).poll_flush(cx)?.is_ready() {
            self.is_flushed = true;
        }
        Ok(())
    }

    /// Whether the broker has given the connection up, and if so whether its last bytes are out.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Option<Poll<Cause>> {
        let is_drained = self.cell().look(|shard| {
            shard.outbox(self.id).filter(|outbox| outbox.is_finished()).map(|outbox| outbox.is_empty())
        })?;
        if (is_drained && self.is_flushed) || self.is_broken() {
            return Some(Poll::Ready(Cause::Eof));
        }
        let deadline = self
            .closing
            .get_or_insert_default()
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + CLOSE_TIMEOUT)));
        Some(deadline.as_mut().poll(cx).map(|()| Cause::Eof))
    }

    /// Reads once into the shard's buffer and hears what came.
    fn read(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        let mut scratch = self.cell().take_scratch();
        let mut buffer = ReadBuf::new(&mut scratch[KEPT_BYTES..]);
        let poll = Pin::new(stream).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        if let Poll::Ready(Ok(())) = poll
            && count > 0
        {
            self.cell().read_mail();
            self.cell().look(|shard| shard.counters().bytes_received.add(count as u64));
            self.take_in(&mut scratch, count);
        }
        self.cell().put_scratch(scratch);
        poll.map_ok(|()| count)
    }

    /// Joins what was kept with what was read.
    fn take_in(&mut self, scratch: &mut [u8], count: usize) {
        match self.partial.take() {
            None => self.hear_and_keep(&scratch[KEPT_BYTES..KEPT_BYTES + count]),
            Some(kept) if kept.bytes.len() <= KEPT_BYTES => {
                let start = KEPT_BYTES - kept.bytes.len();
                scratch[start..KEPT_BYTES].copy_from_slice(&kept.bytes);
                self.hear_and_keep(&scratch[start..KEPT_BYTES + count]);
            }
            Some(mut kept) => {
                kept.bytes.extend_from_slice(&scratch[KEPT_BYTES..KEPT_BYTES + count]);
                if kept.bytes.len() < kept.whole {
                    self.partial = Some(kept);
                } else {
                    self.hear_and_keep(&kept.bytes);
                }
            }
        }
    }

    fn hear_and_keep(&mut self, bytes: &[u8]) {
        let heard = self.hear(bytes);
        self.partial = Partial::of(&bytes[heard.consumed..], heard.whole);
    }

    /// Hears all whole packets of a chunk in one turn.
    fn hear(&mut self, bytes: &[u8]) -> Heard {
        let cell = self.cell().clone();
        cell.turn_of(self.id, |shard, now, out| {
            let mut at = 0;
            while shard.is_open(self.id) {
                match codec::decode(&bytes[at..], self.version, self.packet_bytes_max) {
                    Ok(Decoded::Packet(Packet::Auth(auth), len)) if self.authentication.is_some() => {
                        at += len;
                        self.reauthenticate(&auth, shard, now, out);
                        // What follows waits until that is decided.
                        return Heard { consumed: at, whole: 0 };
                    }
                    Ok(Decoded::Packet(packet, len)) => {
                        at += len;
                        shard.packet(now, self.id, &packet, out);
                        // The rest waits until there is room for what it sets off.
                        if out.forwarded > FORWARDED_MAX || !shard.may_read(self.id) {
                            break;
                        }
                    }
                    Ok(Decoded::Incomplete(whole)) => {
                        return Heard { consumed: at, whole: whole.unwrap_or(1) };
                    }
                    Err(error) => shard.malformed(now, self.id, error, out),
                }
            }
            // Once the broker has given the connection up, nothing more is heard. [MQTT-4.13.1-1]
            let consumed = if shard.is_open(self.id) { at } else { bytes.len() };
            Heard { consumed, whole: 0 }
        })
    }

    /// AUTH from a client that may re-authenticate.
    fn reauthenticate(
        &mut self,
        auth: &codec::Auth<'_>,
        shard: &mut Shard,
        now: Timestamp,
        out: &mut Outputs,
    ) {
        let Some(Authentication::Idle(state)) = self.authentication.take() else { return };
        match state.step(auth, &self.cell().common) {
            Ok(future) => self.authentication = Some(Authentication::UnderWay(Box::new(future))),
            Err(what) => {
                let misbehaviour = Misbehaviour { code: ReasonCode::ProtocolError, what: what.into() };
                shard.disconnect(now, self.id, Cause::Misbehaved(misbehaviour), out);
            }
        }
    }

    /// A step of re-authentication is decided.
    fn conclude(&mut self, state: Box<Reauthentication>, outcome: &Outcome) {
        self.cell().turn_of(self.id, |shard, now, out| match outcome {
            Outcome::Answer { reason, data, principal } => {
                if let Some(principal) = principal {
                    shard.set_principal(self.id, principal.clone());
                }
                shard.authenticate(now, self.id, &state.packet(*reason, data.as_deref()), out);
            }
            Outcome::Failed(code) => shard.disconnect(now, self.id, Cause::AuthenticationFailed(*code), out),
        });
        self.authentication = Some(Authentication::Idle(state));
    }
}
