//! Fields of the store's own records: little-endian numbers, and texts behind their length.

use crate::codec::{PacketId, QoS};

/// The version that every record and row begins with.
pub(super) const VERSION: u8 = 1;

/// Bytes that are no record: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads a record from its first byte to its last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The kind of a record, behind its version.
    pub(super) fn kind(&mut self) -> Result<u8, Malformed> {
        if self.u8()? != VERSION {
            return Err(Malformed("its version is unknown"));
        }
        self.u8()
    }

    /// Checks that a row is of one kind.
    pub(super) fn expect_kind(&mut self, kind: u8) -> Result<(), Malformed> {
        if self.kind()? == kind { Ok(()) } else { Err(Malformed("it is of another kind")) }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed("it is too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("it is too short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of items of so many bytes each at least: one that the rest cannot hold is refused, so that
    /// nobody makes room for it.
    pub(super) fn count(&mut self, item_bytes_min: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count.saturating_mul(item_bytes_min) > self.rest.len() {
            return Err(Malformed("it is too short"));
        }
        Ok(count)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u16()?;
        self.text_of(length)
    }

    pub(super) fn text_of(&mut self, length: u16) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(usize::from(length))?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, Malformed> {
        PacketId::new(self.u16()?).ok_or(Malformed("a packet identifier is 0"))
    }

    pub(super) fn qos(bits: u8) -> Result<QoS, Malformed> {
        QoS::from_u8(bits & 3).ok_or(Malformed("a QoS is 3"))
    }

    /// Bits that have no meaning must not be set: they may get one.
    pub(super) fn flags(&mut self, known: u8) -> Result<u8, Malformed> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(Malformed("a flag is unknown")) }
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("it is too long")) }
    }
}

pub(super) fn head(out: &mut Vec<u8>, kind: u8) {
    out.extend_from_slice(&[VERSION, kind]);
}

/// A text behind its length.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&short(text).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The length of a text of MQTT.
pub(super) fn short(text: &str) -> u16 {
    u16::try_from(text.len()).expect("a text of MQTT has 65,535 bytes at most")
}

/// A length or a count.
pub(super) fn long(length: usize) -> u32 {
    u32::try_from(length).expect("no packet is longer than 256 MiB, and no table has 2^32 entries")
}
