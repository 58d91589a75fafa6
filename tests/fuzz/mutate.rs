//! Inputs that nobody wrote, from inputs that are kept.

/// Bytes of an input at most, as of the fuzzer.
const INPUT_BYTES_MAX: usize = 4096;

/// SplitMix64: a seed is all that is needed to see a failure again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        // Seeds that follow each other begin far from each other.
        Random(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One of the inputs, changed in some places.
pub(crate) fn of(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..1 + random.below(6) {
        change(&mut input, inputs, random);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len());
    let end = at + random.below(input.len() - at + 1).min(64);
    match random.below(8) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.next() as u8,
        2 if !input.is_empty() => input[at] = [0, 1, 127, 128, 254, 255][random.below(6)],
        3 => input.insert(at, random.next() as u8),
        4 => drop(input.drain(at..end)),
        5 => {
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        6 => {
            let other = &inputs[random.below(inputs.len())];
            let from = random.below(other.len());
            input.truncate(at);
            input.extend(&other[from..]);
        }
        _ => input.push(random.next() as u8),
    }
}
