// SPDX-License-Identifier: MIT

// The library through cgo: tests/bindings/common says what it does. Memory that the library keeps is C's, and a Go value that comes
// back to a callback is a cgo.Handle in such memory. The backend is in storage.go.
package main

/*
#cgo LDFLAGS: -lploop
#include <ploop/ploop.h>
#include <stdlib.h>

void goDone(ploop_pio *pio, int result, void *user_data);
*/
import "C"

import (
	"bytes"
	"fmt"
	"os"
	"runtime/cgo"
	"syscall"
	"unsafe"
)

const mib = 1 << 20
const forever = ^C.uint64_t(0)

func must(right bool, what string) {
	if !right {
		panic(what)
	}
}

func call(result C.int, what string) C.int {
	if result < 0 {
		panic(fmt.Sprintf("%s: %v", what, syscall.Errno(-result)))
	}
	return result
}

func pattern(first int) []byte {
	content := make([]byte, 4096)
	for i := range content {
		content[i] = byte((7*i + first) % 251)
	}
	return content
}

// newHandle makes memory of C's that leads to a Go value, for a user pointer.
func newHandle(value any) *C.uintptr_t {
	pointer := (*C.uintptr_t)(C.malloc(C.size_t(unsafe.Sizeof(C.uintptr_t(0)))))
	*pointer = C.uintptr_t(cgo.NewHandle(value))
	return pointer
}

func freeHandle(pointer *C.uintptr_t) {
	cgo.Handle(*pointer).Delete()
	C.free(unsafe.Pointer(pointer))
}

func handleValue(pointer unsafe.Pointer) any {
	return cgo.Handle(*(*C.uintptr_t)(pointer)).Value()
}

// requests sends one request at a time, and hears of its end in either of two ways.
type requests struct {
	queue  *C.ploop_queue
	pio    *C.ploop_pio
	handle *C.uintptr_t
	done   bool
	result C.int
}

//export goDone
func goDone(pio *C.ploop_pio, result C.int, userData unsafe.Pointer) {
	r := handleValue(userData).(*requests)
	must(pio == r.pio, "the request of the callback")
	r.done, r.result = true, result
}

func (r *requests) submit() {
	array := (**C.ploop_pio)(C.malloc(C.size_t(unsafe.Sizeof(r.pio))))
	defer C.free(unsafe.Pointer(array))
	*array = r.pio
	must(C.ploop_queue_submit(r.queue, array, 1) == 1, "ploop_queue_submit")
}

func (r *requests) byCallback() {
	r.done = false
	C.ploop_pio_set_callback(r.pio, (*C.ploop_pio_fn)(C.goDone), unsafe.Pointer(r.handle))
	r.submit()
	for !r.done {
		call(C.ploop_queue_wait(r.queue, forever), "ploop_queue_wait")
	}
	call(r.result, "the request")
}

func (r *requests) byArray() {
	var completions [4]C.struct_ploop_completion
	C.ploop_pio_set_callback(r.pio, nil, unsafe.Pointer(r.handle))
	r.submit()
	count := C.int(0)
	for count == 0 {
		count = call(C.ploop_queue_reap(r.queue, &completions[0], 4), "ploop_queue_reap")
		if count == 0 {
			call(C.ploop_queue_wait(r.queue, forever), "ploop_queue_wait")
		}
	}
	one := &completions[0]
	must(count == 1 && one.pio == r.pio && one.kind == C.PLOOP_COMPLETION_PIO, "a completion")
	must(handleValue(one.user_data).(*requests) == r, "its user data")
	call(one.result, "its result")
}

func (r *requests) round(offset C.uint64_t, content []byte, finish func()) {
	memory := C.CBytes(content)
	defer C.free(memory)
	piece := (*C.struct_iovec)(C.malloc(C.size_t(unsafe.Sizeof(C.struct_iovec{}))))
	defer C.free(unsafe.Pointer(piece))
	piece.iov_base, piece.iov_len = memory, C.size_t(len(content))
	C.ploop_pio_prep_writev(r.pio, offset, piece, 1, 0)
	finish()
	C.ploop_pio_prep_flush(r.pio)
	finish()
	in := unsafe.Slice((*byte)(memory), len(content))
	for i := range in {
		in[i] = 0
	}
	C.ploop_pio_prep_readv(r.pio, offset, piece, 1)
	finish()
	must(bytes.Equal(in, content), "what was written is read")
}

func openDevice(file *C.ploop_file) *C.ploop_dev {
	// An array of pointers to memory of C's may be C's only.
	files := (**C.ploop_file)(C.malloc(C.size_t(unsafe.Sizeof(file))))
	defer C.free(unsafe.Pointer(files))
	*files = file
	var dev *C.ploop_dev
	call(C.ploop_dev_open(files, 1, nil, &dev), "ploop_dev_open")
	return dev
}

func use(file *C.ploop_file) {
	var options C.struct_ploop_image_options
	options.size = C.uint64_t(unsafe.Sizeof(options))
	options.disk_size = 64 * mib
	options.cluster_size = 64 << 10
	call(C.ploop_image_create(file, &options), "ploop_image_create")
	dev := openDevice(file)
	r := &requests{queue: C.ploop_dev_queue(dev, 0)}
	r.pio = C.ploop_pio_get(r.queue)
	r.handle = newHandle(r)
	r.round(1*mib, pattern(1), r.byCallback)
	r.round(2*mib, pattern(2), r.byArray)
	C.ploop_pio_put(r.pio)
	call(C.ploop_dev_close(dev), "ploop_dev_close")
	freeHandle(r.handle)
	var result C.struct_ploop_check_result
	result.size = C.uint64_t(unsafe.Sizeof(result))
	call(C.ploop_image_check(file, nil, &result), "ploop_image_check")
	must(result.errors == 0 && result.leaks == 0, "a clean image")
	C.ploop_file_close(file)
}

func main() {
	path := C.CString(os.Args[1])
	defer C.free(unsafe.Pointer(path))
	var file *C.ploop_file
	call(C.ploop_file_open_posix(path, C.PLOOP_FILE_READ_WRITE|C.PLOOP_FILE_CREATE, &file), "ploop_file_open_posix")
	use(file)
	s := &storage{}
	use(s.open())
	must(s.requests > 0 && s.closed, "the backend was asked and closed")
}
