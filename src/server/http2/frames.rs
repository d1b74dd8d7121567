//! Where frames begin and end in the bytes of an HTTP/2 connection (RFC 9113 §4.1), and what kind
//! they are. What is in them is for hyper to read.

/// Bytes in front of the payload of every frame.
const HEAD: usize = 9;

/// One direction of a connection. Fed the bytes in any portions.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes in front of the first frame: a client's preface.
    skip: usize,
    head: [u8; HEAD],
    /// As much of a head as has come.
    have: usize,
    /// What is left of the present frame's payload.
    left: usize,
    present: Option<Frame>,
    /// Frames so far; those that go on with another's head do not count.
    begun: u64,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// Bytes in it.
    pub length: usize,
    flags: u8,
}

/// Kinds of frames (RFC 9113 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    Ping,
    WindowUpdate,
    Continuation,
    Other,
}

// === impl Kind ===

impl Kind {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            6 => Self::Ping,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Other,
        }
    }
}

// === impl Frame ===

impl Frame {
    fn of(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, ..] = head;
        Self {
            kind: Kind::of(kind),
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            flags,
        }
    }

    /// Whether a block of header fields goes on behind it.
    fn leaves_head_open(self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Continuation) && self.flags & 0x4 == 0
    }

    /// Whether, sent by the gateway, it is a part of an answer.
    pub(super) fn answers(self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Data)
    }

    /// Whether it ends a stream.
    pub(super) fn ends_stream(self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Data) && self.flags & 0x1 != 0
    }
}

// === impl Frames ===

impl Frames {
    /// A direction in which this many bytes come before the first frame.
    pub(super) fn behind(skip: usize) -> Self {
        Self {
            skip,
            head: [0; HEAD],
            have: 0,
            left: 0,
            present: None,
            begun: 0,
        }
    }

    /// Looks at the bytes that come next; tells of every frame whose head has come in whole.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut begun: impl FnMut(Frame)) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = bytes.get(skipped..).unwrap_or_default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = self.left.min(bytes.len());
                self.left -= here;
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else {
                return;
            };
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            bytes = rest;
            if self.have == HEAD {
                let frame = Frame::of(self.head);
                self.have = 0;
                self.left = frame.length;
                self.present = Some(frame);
                self.begun += u64::from(frame.kind != Kind::Continuation);
                begun(frame);
            }
        }
    }

    /// Whether the last byte was the last of a frame, or there was none.
    pub(super) fn at_boundary(&self) -> bool {
        self.skip == 0 && self.have == 0 && self.left == 0
    }

    /// Whether something has begun that has to come to its end soon: a head, or any frame. As long as
    /// it is the same thing, so is the number.
    pub(super) fn unfinished(&self) -> Option<u64> {
        let open = self.present.is_some_and(Frame::leaves_head_open);
        let data = self.present.is_some_and(|frame| frame.kind == Kind::Data);
        // How long the data of a body may take is for the one who reads it to say.
        let unfinished = self.skip > 0 || open || self.have > 0 || (self.left > 0 && !data);
        unfinished.then_some(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let stream = [
            b"preface".to_vec(),
            frame(4, 0, &[]),
            frame(1, 0x5, b"fields"),
            frame(0, 0, b""),
            frame(0, 0x1, b"data of a body"),
            frame(6, 0, b"12345678"),
            frame(77, 0, b"?"),
        ]
        .concat();
        for portion in 1..stream.len() {
            let mut frames = Frames::behind(7);
            let mut seen = Vec::new();
            for bytes in stream.chunks(portion) {
                frames.feed(bytes, |frame| {
                    seen.push((frame.kind, frame.length, frame.ends_stream()));
                });
            }
            assert_eq!(
                seen,
                [
                    (Kind::Settings, 0, false),
                    (Kind::Headers, 6, true),
                    (Kind::Data, 0, false),
                    (Kind::Data, 14, true),
                    (Kind::Ping, 8, false),
                    (Kind::Other, 1, false),
                ],
                "{portion}"
            );
            assert!(frames.at_boundary());
        }
    }

    #[test]
    fn what_has_begun_and_not_ended() {
        for (bytes, unfinished, boundary) in [
            (frame(4, 0, &[]), false, true),
            (vec![0, 0], true, false),
            (frame(1, 0, b"fields"), true, true),
            (frame(1, 4, b"fields"), false, true),
            (frame(9, 4, b"fields"), false, true),
            (frame(1, 4, b"fields")[..12].to_vec(), true, false),
            (frame(0, 0, b"data")[..12].to_vec(), false, false),
            (frame(6, 0, b"12345678")[..10].to_vec(), true, false),
        ] {
            let mut frames = Frames::behind(0);
            frames.feed(&bytes, |_| {});
            assert_eq!(frames.unfinished().is_some(), unfinished, "{bytes:?}");
            assert_eq!(frames.at_boundary(), boundary, "{bytes:?}");
        }
        assert!(Frames::behind(24).unfinished().is_some());
    }

    #[test]
    fn a_head_is_one_thing_and_two_frames_are_two() {
        let mut frames = Frames::behind(0);
        let mut after = |bytes: &[u8]| {
            frames.feed(bytes, |_| {});
            frames.unfinished()
        };
        let head = after(&frame(1, 0, b"fields"));
        assert!(head.is_some());
        assert_eq!(after(&frame(9, 0, b"fields")), head);
        assert_eq!(after(&frame(9, 0, b"")[..4]), head);
        assert_eq!(after(&frame(9, 4, b"")[4..]), None);
        let first = after(&frame(6, 0, b"12345678")[..10]);
        let second = after(
            &[
                &frame(6, 0, b"12345678")[10..],
                &[0, 0, 8, 6, 0, 0, 0, 0, 0],
            ]
            .concat(),
        );
        assert!(first.is_some() && second.is_some() && first != second);
    }
}
