// SPDX-License-Identifier: MIT
//! The library in Rust, and a backend in Rust: tests/bindings/common says what it does.
use ploop::{Backend, By, Dev, File, Op, Queue, Result, PLOOP_FILE_CREATE, PLOOP_FILE_READ_WRITE};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const MIB: u64 = 1 << 20;

fn pattern(first: usize) -> Vec<u8> {
    (0..4096).map(|i| ((7 * i + first) % 251) as u8).collect()
}

/// A backend over memory.
struct Storage {
    bytes: Mutex<Vec<u8>>,
    requests: Arc<AtomicUsize>,
}

impl Backend for Storage {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read(&self, memory: &mut [u8], offset: u64) -> Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let there = bytes.get(offset as usize..).unwrap_or(&[]);
        let count = there.len().min(memory.len());
        memory[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn write(&self, memory: &[u8], offset: u64) -> Result<usize> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.bytes.lock().unwrap();
        let (begin, end) = (offset as usize, offset as usize + memory.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[begin..end].copy_from_slice(memory);
        Ok(memory.len())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.bytes.lock().unwrap().resize(size as usize, 0);
        Ok(())
    }
}

fn round(queue: &Queue, offset: u64, content: &[u8], by: By) -> Result<()> {
    let mut memory = content.to_vec();
    queue.execute(Op::Write(offset), &mut memory, by)?;
    queue.execute(Op::Flush, &mut [], by)?;
    memory.fill(0);
    queue.execute(Op::Read(offset), &mut memory, by)?;
    assert_eq!(memory, content);
    Ok(())
}

fn run(file: &mut File) -> Result<()> {
    file.create_image(64 * MIB, 64 << 10)?;
    let dev = Dev::open(file)?;
    let queue = dev.queue(0).expect("a queue");
    assert!(dev.queue(1).is_none());
    round(&queue, MIB, &pattern(1), By::Callback)?;
    round(&queue, 2 * MIB, &pattern(2), By::Array)?;
    dev.close()?;
    assert_eq!(file.check_image()?, (0, 0));
    Ok(())
}

fn main() {
    let path = std::env::args().nth(1).expect("usage: program IMAGE");
    let mut file = File::open_posix(&path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE).expect("a file");
    run(&mut file).expect("the disk in a file");
    let requests = Arc::new(AtomicUsize::new(0));
    let mut file = File::create(Storage { bytes: Mutex::new(Vec::new()), requests: requests.clone() }).expect("a file");
    run(&mut file).expect("the disk in memory");
    assert!(requests.load(Ordering::Relaxed) > 0);
    drop(file);
    assert_eq!(Arc::strong_count(&requests), 1, "the backend was dropped");
}
