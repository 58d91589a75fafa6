//! Reading and writing the primitive types of the format.

use std::num::NonZeroU16;

use super::reason::ReasonPlace;
use super::{DecodeErrorKind, PacketId, ReasonCode};

/// The largest variable byte integer: four bytes of seven bits.
pub(super) const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// What is still to be read of a packet's body or of a property block.
///
/// Every method takes the name of the field that it reads, for the error.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is still to be read, without reading it.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads all that is left.
    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Refuses bytes that nothing asked for.
    pub(super) fn finish(&self) -> Result<(), DecodeErrorKind> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeErrorKind::TrailingBytes) }
    }

    #[inline]
    pub(super) fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeErrorKind> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(DecodeErrorKind::Truncated(field))?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeErrorKind> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(DecodeErrorKind::Truncated(field))?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeErrorKind> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeErrorKind> {
        self.array(field).map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeErrorKind> {
        self.array(field).map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeErrorKind> {
        // [MQTT-2.2.1-3] a packet identifier is not zero.
        NonZeroU16::new(self.u16("packet identifier")?).ok_or(DecodeErrorKind::PacketIdZero)
    }

    #[inline]
    pub(super) fn variable_byte_integer(&mut self, field: &'static str) -> Result<u32, DecodeErrorKind> {
        match variable_byte_integer(self.rest) {
            VariableByteInteger::Value(value, width) => {
                self.rest = &self.rest[width..];
                Ok(value)
            }
            VariableByteInteger::Incomplete => Err(DecodeErrorKind::Truncated(field)),
            VariableByteInteger::Invalid => Err(DecodeErrorKind::VariableByteInteger(field)),
        }
    }

    #[inline]
    pub(super) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], DecodeErrorKind> {
        let length = self.u16(field)?;
        self.bytes(usize::from(length), field)
    }

    #[inline]
    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeErrorKind> {
        let text = utf8(self.binary(field)?, field)?;
        // [MQTT-1.5.4-2] no null character. Any other is let through, U+FEFF unchanged. [MQTT-1.5.4-3]
        if any_byte(text.as_bytes(), |byte| byte == 0) {
            return Err(DecodeErrorKind::NulCharacter(field));
        }
        Ok(text)
    }

    /// A reason code that may stand in this packet.
    pub(super) fn reason(&mut self, place: ReasonPlace) -> Result<ReasonCode, DecodeErrorKind> {
        let number = self.u8("reason code")?;
        place.reason(number).ok_or(DecodeErrorKind::Code(number))
    }

    /// Reason codes to the end of the packet: at least one.
    pub(super) fn reasons(&mut self, place: ReasonPlace) -> Result<&'a [u8], DecodeErrorKind> {
        let codes = self.take_rest();
        if let Some(&number) = codes.iter().find(|&&number| place.reason(number).is_none()) {
            return Err(DecodeErrorKind::Code(number));
        }
        if codes.is_empty() { Err(DecodeErrorKind::NoCodes) } else { Ok(codes) }
    }

    /// A topic name, which may still be empty.
    #[inline]
    pub(super) fn topic_name(&mut self, field: &'static str) -> Result<&'a str, DecodeErrorKind> {
        let text = utf8(self.binary(field)?, field)?;
        // One pass for the common case; which of the two it was is found out afterwards.
        if any_byte(text.as_bytes(), |byte| byte == 0 || byte == b'+' || byte == b'#') {
            return Err(match text.contains('\0') {
                true => DecodeErrorKind::NulCharacter(field),
                false => DecodeErrorKind::TopicNameWildcard(field),
            });
        }
        Ok(text)
    }
}

#[inline]
fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, DecodeErrorKind> {
    // [MQTT-1.5.4-1] surrogates and overlong forms are not UTF-8 for the standard library either.
    std::str::from_utf8(bytes).map_err(|_| DecodeErrorKind::Utf8(field))
}

/// Without an early exit, so that the compiler looks at sixteen bytes at a time.
#[inline]
fn any_byte(bytes: &[u8], unwanted: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, &byte| found | unwanted(byte))
}

/// What a variable byte integer at the start of some bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VariableByteInteger {
    /// Its value and the number of bytes that it took.
    Value(u32, usize),
    /// All bytes so far have the continuation bit.
    Incomplete,
    /// More than four bytes, or more than the value needs.
    Invalid,
}

/// Reads the variable byte integer at the start of `bytes`.
#[inline]
pub(super) fn variable_byte_integer(bytes: &[u8]) -> VariableByteInteger {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1] as few bytes as the value needs: a last byte of zero says nothing.
            return match byte == 0 && index > 0 {
                true => VariableByteInteger::Invalid,
                false => VariableByteInteger::Value(value, index + 1),
            };
        }
    }
    if bytes.len() < 4 { VariableByteInteger::Incomplete } else { VariableByteInteger::Invalid }
}

/// How many bytes `value` takes as a variable byte integer.
#[inline]
pub(super) fn variable_byte_integer_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

#[inline]
fn variable_byte_integer_bytes(value: usize) -> ([u8; 4], usize) {
    assert!(
        value <= VARIABLE_BYTE_INTEGER_MAX as usize,
        "{value} bytes are more than the format can express: senders check sizes before they encode"
    );
    let width = variable_byte_integer_len(value);
    let mut bytes = [0; 4];
    for (index, byte) in bytes[..width].iter_mut().enumerate() {
        let more = if index + 1 < width { 0x80 } else { 0 };
        *byte = (value >> (7 * index)) as u8 & 0x7F | more;
    }
    (bytes, width)
}

/// Appends a variable byte integer.
#[inline]
pub(super) fn write_variable_byte_integer(value: usize, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let (bytes, width) = variable_byte_integer_bytes(value);
    out.extend_from_slice(&bytes[..width]);
}

/// Appends what `write` appends, preceded by its length as a variable byte integer.
///
/// The length is filled in afterwards, which spares every structure a second description for its size;
/// the rare ones of 128 bytes and more are moved up to make room.
pub(super) fn write_length_prefixed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    fill_in_length(out, at, out.len() - at - 1);
}

/// Replaces the byte at `at` with `length` as a variable byte integer.
pub(super) fn fill_in_length(out: &mut Vec<u8>, at: usize, length: usize) {
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let (bytes, width) = variable_byte_integer_bytes(length);
    out.splice(at..=at, bytes[..width].iter().copied());
}

/// Appends binary data.
///
/// # Panics
/// If it is longer than its length field can tell.
#[inline]
pub(super) fn write_binary(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len())
        .expect("strings and binary data have at most 65,535 bytes: who makes a packet sees to it");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a string; see [`write_binary`].
#[inline]
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    write_binary(text.as_bytes(), out);
}
