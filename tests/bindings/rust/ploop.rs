// SPDX-License-Identifier: MIT
//! A thin safe crate over ploop-sys: files, devices, requests, and backends that are a trait. It needs no other crate.
//!
//! A device borrows its file and a queue its device, so that the compiler keeps their order of closing. A request takes its memory
//! and gives it back when it has completed: nothing else can reach the memory meanwhile.
use ploop_sys as sys;
use std::ffi::{c_void, CString};
use std::marker::PhantomData;
use std::os::raw::c_int;
use std::ptr;

pub use sys::{PLOOP_FILE_CREATE, PLOOP_FILE_READ_ONLY, PLOOP_FILE_READ_WRITE};

/// An errno value, positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error(pub i32);

pub type Result<T> = std::result::Result<T, Error>;

fn check(result: c_int) -> Result<c_int> {
    if result < 0 {
        Err(Error(-result))
    } else {
        Ok(result)
    }
}

/// What the library asks of a backend. Its functions come from any thread, several at once.
pub trait Backend: Send + Sync {
    fn size(&self) -> u64;
    /// Fewer bytes than asked for only at the end of the file.
    fn read(&self, memory: &mut [u8], offset: u64) -> Result<usize>;
    fn write(&self, memory: &[u8], offset: u64) -> Result<usize>;
    fn sync(&self) -> Result<()>;
    fn set_size(&self, size: u64) -> Result<()>;
}

unsafe extern "C" fn get_info<B: Backend>(context: *mut c_void, info: *mut sys::ploop_file_info) -> c_int {
    (*info).file_size = (*(context as *const B)).size();
    (*info).capabilities = sys::PLOOP_FILE_CAN_GROW;
    (*info).request_alignment = 1;
    0
}

unsafe fn transfer<B: Backend>(backend: &B, io: &sys::ploop_io) -> Result<i64> {
    let mut moved = 0;
    for i in 0..io.iov_count as usize {
        let piece = &*io.iov.add(i);
        let place = io.offset + moved as u64;
        let count = if io.op == sys::PLOOP_IO_READ {
            backend.read(std::slice::from_raw_parts_mut(piece.iov_base as *mut u8, piece.iov_len as usize), place)?
        } else {
            backend.write(std::slice::from_raw_parts(piece.iov_base as *const u8, piece.iov_len as usize), place)?
        };
        moved += count as i64;
        if count < piece.iov_len as usize {
            break;
        }
    }
    Ok(moved)
}

unsafe extern "C" fn submit<B: Backend>(context: *mut c_void, io: *mut sys::ploop_io) -> c_int {
    const EOPNOTSUPP: i32 = 95;
    let backend = &*(context as *const B);
    let result = match (*io).op {
        sys::PLOOP_IO_READ | sys::PLOOP_IO_WRITE => transfer(backend, &*io),
        sys::PLOOP_IO_SYNC => backend.sync().map(|()| 0),
        sys::PLOOP_IO_TRUNCATE => backend.set_size((*io).offset).map(|()| 0),
        _ => Err(Error(EOPNOTSUPP)),
    };
    sys::ploop_io_complete(io, result.unwrap_or_else(|error| -i64::from(error.0)));
    0
}

unsafe extern "C" fn close<B: Backend>(context: *mut c_void) {
    drop(Box::from_raw(context as *mut B));
}

/// An image file.
pub struct File(*mut sys::ploop_file);

impl File {
    pub fn open_posix(path: &str, flags: u32) -> Result<File> {
        let path = CString::new(path).map_err(|_| Error(22))?;
        let mut file = ptr::null_mut();
        check(unsafe { sys::ploop_file_open_posix(path.as_ptr(), flags, &mut file) })?;
        Ok(File(file))
    }

    /// A file behind a backend, which is dropped when the file is closed.
    pub fn create<B: Backend + 'static>(backend: B) -> Result<File> {
        let context = Box::into_raw(Box::new(backend)) as *mut c_void;
        let ops = sys::ploop_io_ops {
            size: std::mem::size_of::<sys::ploop_io_ops>() as _,
            get_info: Some(get_info::<B>),
            submit: Some(submit::<B>),
            close: Some(close::<B>),
            ..unsafe { std::mem::zeroed() }
        };
        let mut file = ptr::null_mut();
        check(unsafe { sys::ploop_file_create(&ops, context, &mut file) }).map_err(|error| {
            unsafe { close::<B>(context) };
            error
        })?;
        Ok(File(file))
    }

    pub fn create_image(&mut self, disk_size: u64, cluster_size: u64) -> Result<()> {
        let options = sys::ploop_image_options {
            size: std::mem::size_of::<sys::ploop_image_options>() as u64,
            disk_size,
            cluster_size,
            ..unsafe { std::mem::zeroed() }
        };
        check(unsafe { sys::ploop_image_create(self.0, &options) }).map(|_| ())
    }

    /// The numbers of errors and leaks.
    pub fn check_image(&mut self) -> Result<(u64, u64)> {
        let mut result: sys::ploop_check_result = unsafe { std::mem::zeroed() };
        result.size = std::mem::size_of::<sys::ploop_check_result>() as u64;
        check(unsafe { sys::ploop_image_check(self.0, ptr::null(), &mut result) })?;
        Ok((result.errors, result.leaks))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        unsafe { sys::ploop_file_close(self.0) }
    }
}

/// A device on one image.
pub struct Dev<'a> {
    dev: *mut sys::ploop_dev,
    file: PhantomData<&'a mut File>,
}

impl<'a> Dev<'a> {
    pub fn open(file: &'a mut File) -> Result<Dev<'a>> {
        let mut dev = ptr::null_mut();
        check(unsafe { sys::ploop_dev_open(&file.0, 1, ptr::null(), &mut dev) })?;
        Ok(Dev { dev, file: PhantomData })
    }

    pub fn queue(&self, index: u32) -> Option<Queue<'_>> {
        let queue = unsafe { sys::ploop_dev_queue(self.dev, index) };
        (!queue.is_null()).then(|| Queue { queue, dev: PhantomData })
    }

    /// Whether everything is durable.
    pub fn close(self) -> Result<()> {
        let dev = self.dev;
        std::mem::forget(self);
        check(unsafe { sys::ploop_dev_close(dev) }).map(|_| ())
    }
}

impl Drop for Dev<'_> {
    fn drop(&mut self) {
        unsafe { sys::ploop_dev_close(self.dev) };
    }
}

/// How the end of a request is told.
#[derive(Clone, Copy)]
pub enum By {
    Callback,
    Array,
}

pub enum Op {
    Read(u64),
    Write(u64),
    Flush,
}

/// A queue: for one thread at a time, so it is neither Send nor Sync.
pub struct Queue<'a> {
    queue: *mut sys::ploop_queue,
    dev: PhantomData<&'a ()>,
}

unsafe extern "C" fn store(_: *mut sys::ploop_pio, result: c_int, user_data: *mut c_void) {
    *(user_data as *mut Option<c_int>) = Some(result);
}

impl Queue<'_> {
    /// Carry out one request with this memory, and wait for it.
    pub fn execute(&self, op: Op, memory: &mut [u8], by: By) -> Result<()> {
        let pio = unsafe { sys::ploop_pio_get(self.queue) };
        if pio.is_null() {
            return Err(Error(11));
        }
        let piece = sys::iovec { iov_base: memory.as_mut_ptr() as *mut c_void, iov_len: memory.len() as _ };
        unsafe {
            match op {
                Op::Read(offset) => sys::ploop_pio_prep_readv(pio, offset, &piece, 1),
                Op::Write(offset) => sys::ploop_pio_prep_writev(pio, offset, &piece, 1, 0),
                Op::Flush => sys::ploop_pio_prep_flush(pio),
            }
        }
        let result = self.finish(pio, by);
        unsafe { sys::ploop_pio_put(pio) };
        result
    }

    fn finish(&self, pio: *mut sys::ploop_pio, by: By) -> Result<()> {
        let mut result: Option<c_int> = None;
        let place = &mut result as *mut Option<c_int>;
        unsafe {
            sys::ploop_pio_set_callback(pio, if let By::Callback = by { Some(store) } else { None }, place as *mut c_void);
            check(sys::ploop_queue_submit(self.queue, &pio, 1))?;
        }
        loop {
            if let By::Array = by {
                self.reap(pio, place);
            }
            // The callback, or the array, has written there.
            if let Some(result) = unsafe { ptr::read_volatile(place) } {
                return check(result).map(|_| ());
            }
            check(unsafe { sys::ploop_queue_wait(self.queue, u64::MAX) }).expect("no runner has the queue");
        }
    }

    fn reap(&self, pio: *mut sys::ploop_pio, place: *mut Option<c_int>) {
        let mut completions: [sys::ploop_completion; 4] = unsafe { std::mem::zeroed() };
        let count = check(unsafe { sys::ploop_queue_reap(self.queue, completions.as_mut_ptr(), 4) }).expect("no runner has the queue");
        if count > 0 {
            let one = &completions[0];
            assert_eq!((count, one.pio, one.kind), (1, pio, sys::PLOOP_COMPLETION_PIO));
            assert_eq!(one.user_data, place as *mut c_void);
            unsafe { *place = Some(one.result) };
        }
    }
}
