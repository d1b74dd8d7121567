//! The ways in which bytes come: at once, one by one, and in pieces as a network makes them.

/// One stream, cut in several ways. Which ones depends on the bytes alone, so that a failure can be replayed.
pub fn of(stream: &[u8]) -> Vec<Vec<&[u8]>> {
    let seed = stream.iter().fold(stream.len() as u64, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let mut ways = vec![vec![stream], stream.chunks(1).collect()];
    for (seed, longest) in [(seed, 4), (!seed, 100), (seed >> 7, 1000)] {
        ways.push(at_random(stream, seed, longest));
    }
    ways
}

/// Pieces of 1 to `longest` bytes, now and then one of none.
fn at_random(mut stream: &[u8], mut state: u64, longest: usize) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        // A linear congruential generator; its upper bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let length = (state >> 33) as usize % (longest + 1);
        let (piece, rest) = stream.split_at(length.min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}
