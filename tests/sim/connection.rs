//! Connections: what the broker does at its end, and what clients do at theirs.

use dunlin::{
    acl::Principal,
    broker::{Admission, Event as Happened, Refusal, admit},
    codec::{self, Connect, Decoded, Packet, ReasonCode, Version},
    session::LinkId,
};

use super::{
    broker::{Joined, shard_of},
    client::Turn,
    event::Event,
    link::{Arrival, Server, Wire},
    world::{Wake, World},
};

/// Time that a connection which is being closed has to take what is still for it, as in the shell.
const CLOSE_MILLIS: u64 = 5000;

/// The connection as the broker sees it.
impl World {
    pub(super) fn arrive_at_broker(&mut self, wire: usize) {
        match self.wires[wire].to_broker.receive(self.now) {
            Arrival::Nothing => {}
            Arrival::Bytes(bytes) => {
                match &mut self.wires[wire].server {
                    Server::Greeting(unheard) | Server::Linked { unheard, .. } => unheard.extend(bytes),
                    Server::Closed => return,
                }
                self.hear(wire);
                // The end may be here too.
                self.arrive_at_broker(wire);
            }
            Arrival::End => self.close_server(wire),
        }
    }

    /// The socket is closed.
    pub(super) fn close_server(&mut self, wire: usize) {
        let server = std::mem::replace(&mut self.wires[wire].server, Server::Closed);
        self.blocked.remove(&wire);
        if let Server::Linked { shard, link, .. } = server {
            self.turn(shard, |shard, now, out| shard.closed(now, link, dunlin::broker::Cause::Eof, out));
            if let Some(broker) = &mut self.broker {
                broker.links.remove(&(shard, link));
            }
        }
        self.finish_to_client(wire);
    }

    fn finish_to_client(&mut self, wire: usize) {
        let end = self.wires[wire].to_client.finish(self.now, self.manners, &mut self.rng);
        if let Some(at) = end {
            self.at(at, Wake::ToClient(wire));
        }
    }

    /// Hears what has come, as far as the broker wants to.
    pub(super) fn hear(&mut self, wire: usize) {
        if self.broker.is_none() {
            return;
        }
        if let Server::Greeting(bytes) = &mut self.wires[wire].server {
            let bytes = std::mem::take(bytes);
            self.greet(wire, bytes);
        }
        let Server::Linked { shard, link, unheard } = &mut self.wires[wire].server else { return };
        let (index, link, bytes) = (*shard, *link, std::mem::take(unheard));
        self.read_mail(index);
        let version = self.clients[self.wires[wire].client].version;
        let packet_bytes_max = self.rules.limits.packet_bytes_max;
        let mut at = 0;
        while let Ok(Decoded::Packet(packet, taken)) = codec::decode(&bytes[at..], version, packet_bytes_max)
        {
            let is_heard = self.broker.as_ref().is_some_and(|broker| {
                let shard = &broker.nodes[index].shard;
                shard.is_open(link) && shard.may_read(link)
            });
            if !is_heard {
                break;
            }
            at += taken;
            if let Packet::Disconnect(disconnect) = &packet {
                // Before the shard hears it, so that whoever hears of the end knows.
                self.wires[wire].is_revoked = disconnect.reason == ReasonCode::Success;
            }
            self.turn(index, |shard, now, out| shard.packet(now, link, &packet, out));
        }
        let is_open = self.broker.as_ref().is_some_and(|broker| broker.nodes[index].shard.is_open(link));
        if let Server::Linked { unheard, .. } = &mut self.wires[wire].server
            && is_open
        {
            unheard.extend_from_slice(&bytes[at..]);
            if !unheard.is_empty() && !self.may_hear(wire) {
                self.blocked.insert(wire);
            }
        }
    }

    /// CONNECT, once it is complete.
    fn greet(&mut self, wire: usize, bytes: Vec<u8>) {
        let decoded = codec::decode(&bytes, Version::V5, self.rules.limits.packet_bytes_max);
        let (connect, taken) = match decoded {
            Ok(Decoded::Packet(Packet::Connect(connect), taken)) => (connect, taken),
            Ok(Decoded::Incomplete(_)) => {
                self.wires[wire].server = Server::Greeting(bytes);
                return;
            }
            other => {
                self.fail("answers", format!("the broker took CONNECT for {other:?}"));
                return;
            }
        };
        let client = self.wires[wire].client;
        let shard = shard_of(&self.clients[client].id, self.rules.shards);
        match self.connect(wire, shard, &connect) {
            Ok(link) => {
                self.wires[wire].server = Server::Linked { shard, link, unheard: bytes[taken..].to_vec() };
                let client_id = self.clients[client].id.clone();
                if let Some(broker) = &mut self.broker {
                    broker.links.insert((shard, link), Joined { wire, client_id });
                }
                self.touched.push_back(wire);
            }
            Err(refusal) => {
                self.trace
                    .line(self.now, || format!("broker: connection {wire} is refused: {}", refusal.why));
                let mut answer = Vec::new();
                if let Some(packet) = refusal.conn_ack(connect.version) {
                    codec::encode(&packet, connect.version, &mut answer);
                }
                self.send_to_client(wire, &answer);
                self.close_server(wire);
            }
        }
    }

    fn connect(&mut self, wire: usize, shard: usize, connect: &Connect<'_>) -> Result<LinkId, Refusal> {
        let client = self.wires[wire].client;
        let Some(broker) = &self.broker else {
            return Err(Refusal::new(ReasonCode::ServerUnavailable, "down"));
        };
        admit(connect, &broker.shared, &broker.shared.limits)?;
        self.read_mail(shard);
        let admission = Admission {
            connect,
            assigned_client_id: None,
            principal: Principal::default(),
            peer: format!("wire-{wire}").into(),
            is_local: false,
            durability: self.clients[client].durability,
            allowances: Vec::new(),
            authentication_data: None,
        };
        // What happened to the connection before is told first.
        let Some(broker) = &mut self.broker else {
            return Err(Refusal::new(ReasonCode::ServerUnavailable, "down"));
        };
        let (result, touched, happened) =
            broker.turn(self.now, shard, |shard, now, out| shard.connect(now, &admission, out));
        for event in happened {
            if let Happened::Connected { session_present: present, .. } = event {
                let clean = connect.clean_start;
                let expiry_secs = self.clients[client].expiry_of(clean);
                let will = self.wills.get(&wire).copied();
                self.emit(&Event::Opened { client, wire, clean, present, expiry_secs, will });
            }
            self.on_happened(event);
        }
        self.touch(shard, &touched);
        for shard in 0..self.rules.shards {
            self.post(shard);
        }
        result
    }

    /// Moves bytes from an outbox to its client, as far as there is room under way.
    pub(super) fn write(&mut self, wire: usize) {
        let Server::Linked { shard: index, link, .. } = self.wires[wire].server else { return };
        loop {
            let room = self.wires[wire].to_client.room(self.manners);
            let Some(broker) = &mut self.broker else { return };
            let Some(outbox) = broker.nodes[index].shard.outbox(link) else { return };
            let mut bytes = Vec::new();
            while bytes.len() < room && outbox.ready() > 0 {
                let chunk = outbox.chunk();
                let count = chunk.len().min(room - bytes.len());
                bytes.extend_from_slice(&chunk[..count]);
                outbox.advance(count);
            }
            let is_finished = outbox.is_finished();
            let is_over = is_finished && outbox.is_empty();
            let is_any = !bytes.is_empty();
            self.send_to_client(wire, &bytes);
            if is_over {
                self.close_server(wire);
                return;
            }
            if !is_any {
                if is_finished && !std::mem::replace(&mut self.wires[wire].is_doomed, true) {
                    self.at(self.now + CLOSE_MILLIS, Wake::Deadline(wire));
                }
                return;
            }
            self.turn(index, |shard, now, out| shard.drained(now, link, out));
        }
    }

    fn send_to_client(&mut self, wire: usize, bytes: &[u8]) {
        let moments = self.wires[wire].to_client.send(self.now, bytes, self.manners, &mut self.rng);
        for at in moments {
            self.at(at, Wake::ToClient(wire));
        }
    }
}

/// The connection as its client sees it.
impl World {
    /// Opens a connection for a client. False if nobody listens.
    pub(crate) fn open(&mut self, client: usize) -> Option<usize> {
        self.broker.as_ref()?;
        self.wires.push(Wire::new(client));
        self.facts.epochs.push(0);
        Some(self.wires.len() - 1)
    }

    /// Sees to what a client did.
    pub(crate) fn carry_out(&mut self, wire: usize, turn: Turn) {
        for event in turn.events {
            self.emit(&event);
        }
        let moments = self.wires[wire].to_broker.send(self.now, &turn.bytes, self.manners, &mut self.rng);
        for at in moments {
            self.at(at, Wake::ToBroker(wire));
        }
        if turn.closes {
            self.hang_up(self.wires[wire].client);
        }
    }

    /// A client closes its connection.
    pub(crate) fn hang_up(&mut self, client: usize) {
        let Some(wire) = self.clients[client].wire() else { return };
        if let Some(at) = self.wires[wire].to_broker.finish(self.now, self.manners, &mut self.rng) {
            self.at(at, Wake::ToBroker(wire));
        }
        self.lose(client);
    }

    fn lose(&mut self, client: usize) {
        if let Some(event) = self.clients[client].lose() {
            self.emit(&event);
        }
    }

    /// The network loses a connection, and both ends notice sooner or later.
    pub(crate) fn cut(&mut self, wire: usize) {
        self.trace.line(self.now, || format!("network: connection {wire} breaks"));
        if let Some(at) = self.wires[wire].to_broker.cut(self.now, self.manners, &mut self.rng) {
            self.at(at, Wake::ToBroker(wire));
        }
        if let Some(at) = self.wires[wire].to_client.cut(self.now, self.manners, &mut self.rng) {
            self.at(at, Wake::ToClient(wire));
        }
    }

    /// A client is gone, and the broker does not hear of it.
    pub(crate) fn vanish(&mut self, client: usize) {
        let Some(wire) = self.clients[client].wire() else { return };
        self.trace.line(self.now, || format!("network: connection {wire} is half open"));
        self.wires[wire].to_broker.is_dead = true;
        self.wires[wire].to_client.is_dead = true;
        self.lose(client);
    }

    pub(super) fn arrive_at_client(&mut self, wire: usize) {
        let client = self.wires[wire].client;
        let is_current = self.clients[client].wire() == Some(wire);
        if is_current && self.clients[client].is_stalled {
            return;
        }
        match self.wires[wire].to_client.receive(self.now) {
            Arrival::Nothing => {}
            Arrival::End if is_current => self.hang_up(client),
            Arrival::End => {}
            Arrival::Bytes(bytes) => {
                self.touched.push_back(wire);
                if is_current {
                    self.wires[wire].unread.extend(bytes);
                    self.read(client, wire);
                }
                self.arrive_at_client(wire);
            }
        }
    }

    fn read(&mut self, client: usize, wire: usize) {
        while self.clients[client].wire() == Some(wire) && self.violation().is_none() {
            let mut turn = Turn::default();
            let unread = std::mem::take(&mut self.wires[wire].unread);
            match self.clients[client].read(&unread, &self.facts.messages, &mut turn) {
                Ok(taken) => {
                    self.wires[wire].unread = unread[taken..].to_vec();
                    self.carry_out(wire, turn);
                    if taken == 0 {
                        return;
                    }
                }
                Err(what) => self.fail("answers", what),
            }
        }
    }

    /// A client reads again.
    pub(crate) fn unstall(&mut self, client: usize) {
        self.clients[client].is_stalled = false;
        if let Some(wire) = self.clients[client].wire() {
            self.at(self.now, Wake::ToClient(wire));
        }
    }
}
