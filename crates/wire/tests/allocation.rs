//! What the frame reader and writer allocate, counted by the allocator itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wire::ws::deflate::{Compressor, Inflater, Level, MarkSource, Previous};
use wire::ws::extension::Policy;
use wire::ws::{Event, Limits, OpCode, Reader, Role, write_compressed_header, write_frame};

/// The system's allocator, counting per thread: tests run beside each other.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(asked: usize, freed: usize) {
    CALLS.set(CALLS.get() + usize::from(asked > 0));
    ASKED.set(ASKED.get() + asked);
    LIVE.set(LIVE.get() + asked as isize - freed as isize);
}

// SAFETY: every call goes to `System` with the arguments it came with, so `System` keeps the
// contract of `GlobalAlloc`. Counting neither allocates nor unwinds: the cells are initialised by
// constants and have no destructor, so they can be used at any time in a thread's life, and the
// sums stay far below overflow.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: `pointer` came from `System`, with this layout, as all of ours do.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: `pointer` came from `System`, with this layout; the caller answers for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls, bytes asked for and bytes still held by `work`, on this thread.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize, usize, isize) {
    let before = (CALLS.get(), ASKED.get(), LIVE.get());
    let result = work();
    (result, CALLS.get() - before.0, ASKED.get() - before.1, LIVE.get() - before.2)
}

const LIMITS: Limits = Limits { message_bytes_max: 16 << 20, fragments_max: 65_536 };

/// Feeds a chunk; the number of messages and the bytes in them.
fn feed(reader: &mut Reader, mut chunk: &mut [u8]) -> (usize, usize) {
    let (mut messages, mut bytes) = (0, 0);
    while let Some(event) = reader.next(&mut chunk, &LIMITS).expect("the frames are good") {
        if let Event::Message { payload, .. } = event {
            messages += 1;
            bytes += payload.len();
        }
    }
    (messages, bytes)
}

#[test]
fn frames_whole_in_their_chunk_allocate_nothing() {
    let mut chunk = Vec::new();
    for (opcode, payload) in [
        (OpCode::Text, "grüße".repeat(100)),
        (OpCode::Binary, "x".repeat(70_000)),
        (OpCode::Ping, "p".repeat(125)),
        (OpCode::Pong, String::new()),
        (OpCode::Text, String::new()),
    ] {
        write_frame(&mut chunk, opcode, true, payload.as_bytes(), Some([9, 8, 7, 6]));
    }
    let mut reader = Reader::new(Role::Server);
    let ((messages, _), calls, _, _) = counted(|| feed(&mut reader, &mut chunk));
    assert_eq!((messages, calls), (3, 0));
}

#[test]
fn a_cut_header_allocates_nothing() {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, OpCode::Binary, true, &[7; 70_000], Some([9, 8, 7, 6]));
    let mut reader = Reader::new(Role::Server);
    for at in 0..13 {
        let ((messages, _), calls, _, _) = counted(|| feed(&mut reader, &mut bytes[at..at + 1]));
        assert_eq!((messages, calls), (0, 0), "byte {at}");
    }
    let ((messages, _), calls, _, _) = counted(|| feed(&mut reader, &mut bytes[13..]));
    assert_eq!((messages, calls), (1, 0), "the rest is whole in its chunk");
}

#[test]
fn a_partial_message_is_freed_when_the_caller_is_done_with_it() {
    for chunk_len in [1, 7, 1000] {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, OpCode::Text, false, &[b'a'; 3000], Some([1, 2, 3, 4]));
        write_frame(&mut bytes, OpCode::Ping, true, &[b'p'; 125], Some([1, 2, 3, 4]));
        write_frame(&mut bytes, OpCode::Continuation, true, &[b'b'; 3000], Some([1, 2, 3, 4]));
        let mut reader = Reader::new(Role::Server);
        let (messages, calls, _, held) =
            counted(|| bytes.chunks_mut(chunk_len).map(|chunk| feed(&mut reader, chunk).0).sum::<usize>());
        assert_eq!((messages, held), (1, 0), "chunks of {chunk_len}");
        assert!(calls > 0, "or this test counts nothing");
    }
}

#[test]
fn an_error_frees_the_partial_message() {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, OpCode::Text, false, &[b'a'; 3000], Some([1, 2, 3, 4]));
    bytes.push(0xff);
    let mut reader = Reader::new(Role::Server);
    let (refused, calls, _, held) = counted(|| {
        let mut input = &mut bytes[..];
        reader.next(&mut input, &LIMITS).is_err()
    });
    assert!(refused && calls > 0);
    assert_eq!(held, 0);
}

#[test]
fn a_lying_length_gets_memory_only_for_what_was_sent() {
    let mut header = b"\x82\xff\0\0\0\0\x01\0\0\0\x01\x02\x03\x04".to_vec();
    header.extend([0; 100]);
    let mut reader = Reader::new(Role::Server);
    let ((), _, _, held) = counted(|| {
        assert_eq!(feed(&mut reader, &mut header), (0, 0));
    });
    assert!(held < 1024, "{held} bytes are held for 100 that came");
    let ((), _, _, held) = counted(|| {
        for _ in 0..50 {
            assert_eq!(feed(&mut reader, &mut [0; 1000]), (0, 0));
        }
    });
    assert!(held < 110_000, "{held} bytes are held for 50,100 that came");
}

#[test]
fn a_message_in_pieces_is_copied_a_bounded_number_of_times() {
    let len = 16 << 20;
    for fragments in [1, 65_536] {
        let mut bytes = Vec::with_capacity(len + 14 * fragments);
        for number in 0..fragments {
            let opcode = if number == 0 { OpCode::Binary } else { OpCode::Continuation };
            let payload = vec![7; len / fragments];
            write_frame(&mut bytes, opcode, number + 1 == fragments, &payload, None);
        }
        let mut reader = Reader::new(Role::Client);
        let (sizes, calls, asked, held) = counted(|| {
            let (mut messages, mut total) = (0, 0);
            for chunk in bytes.chunks_mut(64 * 1024) {
                let (more, len) = feed(&mut reader, chunk);
                messages += more;
                total += len;
            }
            (messages, total)
        });
        assert_eq!((sizes, held), ((1, len), 0));
        assert!(calls < 40, "{calls} calls");
        assert!(asked <= 3 * len, "{asked} bytes in all");
    }
}

#[test]
fn writing_into_a_buffer_with_room_allocates_nothing() {
    let mut out = Vec::with_capacity(100_000);
    let (_, calls, _, _) = counted(|| {
        write_frame(&mut out, OpCode::Binary, true, &[1; 70_000], Some([1, 2, 3, 4]));
        wire::ws::write_close(&mut out, wire::ws::CloseCode::NORMAL, "bye", None);
    });
    assert_eq!(calls, 0);
}

#[test]
fn compressing_and_inflating_allocate_nothing_once_they_have_run() {
    let agreed = {
        let mut head = Vec::new();
        let extra = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")];
        wire::ws::client::write_request(&mut head, "example.org", "/", &[7; 16], None, &extra);
        let (request, _) = wire::http::parse(&head, &Default::default()).expect("good").expect("whole");
        wire::ws::handshake::check(&request).expect("good").deflate(&Policy::default()).expect("acceptable")
    };
    let (mut compressor, mut inflater) = (Compressor::new(Level::default()), Inflater::new());
    let mut readers = [0; 3].map(|_| Reader::with_deflate(Role::Server, agreed));
    let mut marks = MarkSource::default();
    let (mut payload, mut bytes) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    let message = "{\"symbol\":\"ACME\",\"bid\":101.25,\"ask\":101.50}".repeat(40);
    let mut round = |compressed: bool| {
        for reader in &mut readers {
            payload.clear();
            bytes.clear();
            let previous = Previous { mark: marks.draw(), payload: message.as_bytes() };
            let _ = compressor.compress(message.as_bytes(), Some(previous), message.len(), &mut payload);
            payload.clear();
            compressor.compress(message.as_bytes(), None, message.len(), &mut payload).expect("it shrinks");
            if compressed {
                write_compressed_header(&mut bytes, OpCode::Text, payload.len(), Some([0; 4]));
                bytes.extend_from_slice(&payload);
            } else {
                write_frame(&mut bytes, OpCode::Text, true, message.as_bytes(), Some([0; 4]));
            }
            let mut input = &mut bytes[..];
            let event = reader.next_inflating(&mut input, &LIMITS, &mut inflater).expect("a good frame");
            assert!(matches!(event, Some(Event::Message { payload, .. }) if payload == message.as_bytes()));
        }
    };
    let ((), _, _, held) = counted(|| round(false));
    assert_eq!(held, 0, "a client that has sent nothing compressed costs nothing");
    let ((), calls, _, held) = counted(|| round(true));
    assert!(calls > 0 && (3 * 1024..10_000).contains(&held), "the inflater's buffer and 1 KiB each: {held} bytes");
    for _ in 0..10 {
        let ((), calls, _, held) = counted(|| round(true));
        assert_eq!((calls, held), (0, 0));
    }
}
