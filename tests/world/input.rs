//! What clients send, as the broker reads it.

use dunlin::{
    acl::Principal,
    broker::{Admission, Refusal, admit},
    codec::{self, Connect, DecodeError, Decoded, Packet, Version},
};

use super::{Inner, shard_of};

impl Inner {
    /// Lets the broker read what a client has sent, as far as it will.
    pub(super) fn read_input(&mut self, peer: usize) -> bool {
        let mut is_busy = false;
        while self.read_packet(peer) {
            is_busy = true;
        }
        is_busy
    }

    fn read_packet(&mut self, peer: usize) -> bool {
        if self.peers[peer].is_closed || self.peers[peer].input.is_empty() {
            return false;
        }
        let version = self.peers[peer].link.map_or(Version::V311, |_| self.peers[peer].setup.version);
        if let Some((index, link)) = self.peers[peer].link {
            let shard = &self.nodes[index].shard;
            if !shard.is_open(link) {
                self.peers[peer].input.clear();
                return false;
            }
            if !shard.may_read(link) {
                return false;
            }
        }
        let input = std::mem::take(&mut self.peers[peer].input);
        let taken = match codec::decode(&input, version, self.shared.limits.packet_bytes_max) {
            Ok(Decoded::Packet(packet, taken)) => {
                self.on_packet(peer, &packet);
                taken
            }
            Ok(Decoded::Incomplete(_)) => 0,
            Err(error) => {
                self.on_malformed(peer, error);
                input.len()
            }
        };
        let late = std::mem::take(&mut self.peers[peer].input);
        self.peers[peer].input = input[taken..].to_vec();
        self.peers[peer].input.extend(late);
        // After each packet, so that every one is a turn of its own.
        self.collect();
        taken > 0
    }

    fn on_packet(&mut self, peer: usize, packet: &Packet<'_>) {
        let now = self.now;
        let early = self.peers[peer].note_read(packet);
        match (self.peers[peer].link, packet) {
            (Some((index, link)), _) => {
                let unknown = self.shared.sum(|counters| counters.acks_unknown.value());
                let node = &mut self.nodes[index];
                node.shard.packet(now, link, packet, &mut node.out);
                let is_known = self.shared.sum(|counters| counters.acks_unknown.value()) == unknown;
                if let Some(id) = early.filter(|_| is_known) {
                    self.peers[peer].note_settled_early(id);
                }
            }
            (None, Packet::Connect(connect)) => self.on_connect(peer, connect),
            // What the shell does with a connection that does not begin with CONNECT.
            (None, _) => self.peers[peer].is_closed = true,
        }
    }

    fn on_malformed(&mut self, peer: usize, error: DecodeError) {
        let now = self.now;
        if let Some((index, link)) = self.peers[peer].link {
            let node = &mut self.nodes[index];
            node.shard.malformed(now, link, error, &mut node.out);
            return;
        }
        let refusal = Refusal::new(error.reason_code(), error.to_string());
        match error.connack_form() {
            Some(version) => self.refuse(peer, &refusal, version),
            None => self.peers[peer].is_closed = true,
        }
    }

    fn on_connect(&mut self, peer: usize, connect: &Connect<'_>) {
        self.peers[peer].setup.note(connect);
        if let Err(refusal) = admit(connect, &self.shared, &self.shared.limits) {
            return self.refuse(peer, &refusal, connect.version);
        }
        let assigned = connect.client_id.is_empty().then(|| {
            self.assigned_ids += 1;
            format!("assigned-{}", self.assigned_ids)
        });
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let index = shard_of(client_id, self.nodes.len());
        let admission = Admission {
            connect,
            assigned_client_id: assigned.as_deref(),
            principal: Principal { user: connect.user_name.map(Into::into), details: None },
            peer: format!("peer-{peer}").into(),
            is_local: false,
            durability: self.peers[peer].setup.durability,
            allowances: self.peers[peer].setup.allowances.clone(),
            authentication_data: None,
        };
        let node = &mut self.nodes[index];
        match node.shard.connect(self.now, &admission, &mut node.out) {
            Ok(link) => self.peers[peer].link = Some((index, link)),
            Err(refusal) => self.refuse(peer, &refusal, connect.version),
        }
    }

    /// Refuses a connection as the shell does.
    fn refuse(&mut self, peer: usize, refusal: &Refusal, version: Version) {
        let peer = &mut self.peers[peer];
        peer.setup.version = version;
        if let Some(packet) = refusal.conn_ack(version) {
            let packet_bytes_max = peer.setup.packet_bytes_max.unwrap_or(codec::PACKET_BYTES_LIMIT);
            codec::encode_within(&packet, version, packet_bytes_max, &mut peer.wire);
        }
        peer.read_wire();
        peer.is_closed = true;
        peer.input.clear();
    }
}
