//! The two properties that may stand more than once.

use std::fmt;
use std::num::NonZeroU32;

use crate::codec::DecodeErrorKind;
use crate::codec::wire::{Reader, write_string};

use super::{Field, PropertyId, Value, WireType};

/// User properties in their order: borrowed from a packet, or a list to be written.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    source: Source<'a, (&'a str, &'a str)>,
}

/// Subscription identifiers of a PUBLISH in their order: borrowed from a packet, or a list to be written.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    source: Source<'a, NonZeroU32>,
}

#[derive(Clone, Copy)]
enum Source<'a, T> {
    /// A property block, validated, from the first of these properties to the block's end. Others may
    /// stand between them and are skipped.
    Block(&'a [u8]),
    List(&'a [T]),
}

impl<T> Default for Source<'_, T> {
    fn default() -> Self {
        Source::List(&[])
    }
}

impl<'a, T: Copy> Source<'a, T> {
    fn is_empty(&self) -> bool {
        match self {
            Source::Block(block) => block.is_empty(),
            Source::List(list) => list.is_empty(),
        }
    }

    /// The values in order; `read` reads one from a block.
    fn iter(
        self,
        id: PropertyId,
        read: fn(&mut Reader<'a>) -> Result<T, DecodeErrorKind>,
    ) -> impl Iterator<Item = T> + Clone {
        let (block, list) = match self {
            Source::Block(block) => (block, &[][..]),
            Source::List(list) => (&[][..], list),
        };
        BlockIter { id, block, read }.chain(list.iter().copied())
    }
}

impl<'a> UserProperties<'a> {
    /// Properties to be written. Names and values have at most 65,535 bytes.
    pub fn from_list(list: &'a [(&'a str, &'a str)]) -> Self {
        UserProperties { source: Source::List(list) }
    }

    /// Names and values in order. A name may stand more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.source.iter(PropertyId::UserProperty, read_pair)
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }
}

impl<'a> SubscriptionIds<'a> {
    /// Identifiers to be written, at most 268,435,455 each.
    pub fn from_list(list: &'a [NonZeroU32]) -> Self {
        SubscriptionIds { source: Source::List(list) }
    }

    /// The identifiers in order.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> + Clone + use<'a> {
        self.source.iter(PropertyId::SubscriptionIdentifier, |block| {
            NonZeroU32::read(PropertyId::SubscriptionIdentifier, block)
        })
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Field<'a> for UserProperties<'a> {
    fn read_value(
        &mut self,
        _id: PropertyId,
        here: &'a [u8],
        block: &mut Reader<'a>,
    ) -> Result<(), DecodeErrorKind> {
        if self.is_empty() {
            self.source = Source::Block(here);
        }
        read_pair(block).map(|_| ())
    }

    fn write_value(&self, id: PropertyId, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            id.write(out);
            write_string(name, out);
            write_string(value, out);
        }
    }
}

impl<'a> Field<'a> for SubscriptionIds<'a> {
    fn read_value(
        &mut self,
        id: PropertyId,
        here: &'a [u8],
        block: &mut Reader<'a>,
    ) -> Result<(), DecodeErrorKind> {
        if self.is_empty() {
            self.source = Source::Block(here);
        }
        NonZeroU32::read(id, block).map(|_| ())
    }

    fn write_value(&self, id: PropertyId, out: &mut Vec<u8>) {
        for subscription_id in self.iter() {
            id.write(out);
            subscription_id.write(id, out);
        }
    }
}

fn read_pair<'a>(block: &mut Reader<'a>) -> Result<(&'a str, &'a str), DecodeErrorKind> {
    Ok((block.string("name of a user property")?, block.string("value of a user property")?))
}

/// Finds the values of one property in a block that was validated when the packet was decoded.
#[derive(Clone)]
struct BlockIter<'a, T> {
    id: PropertyId,
    block: &'a [u8],
    read: fn(&mut Reader<'a>) -> Result<T, DecodeErrorKind>,
}

impl<T> Iterator for BlockIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let mut block = Reader::new(self.block);
        while !block.is_empty() {
            let id = PropertyId::read(&mut block).expect(VALIDATED);
            if id == self.id {
                let value = (self.read)(&mut block).expect(VALIDATED);
                self.block = block.rest();
                return Some(value);
            }
            skip(id, &mut block).expect(VALIDATED);
        }
        self.block = &[];
        None
    }
}

const VALIDATED: &str = "the block was read to its end when its packet was decoded";

fn skip(id: PropertyId, block: &mut Reader<'_>) -> Result<(), DecodeErrorKind> {
    match id.wire_type() {
        WireType::Byte => block.u8(id.name()).map(|_| ()),
        WireType::TwoBytes => block.u16(id.name()).map(|_| ()),
        WireType::FourBytes => block.u32(id.name()).map(|_| ()),
        WireType::VariableByteInteger => block.variable_byte_integer(id.name()).map(|_| ()),
        WireType::Binary | WireType::String => block.binary(id.name()).map(|_| ()),
        WireType::StringPair => {
            block.binary(id.name())?;
            block.binary(id.name()).map(|_| ())
        }
    }
}
