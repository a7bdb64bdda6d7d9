// SPDX-License-Identifier: MIT
// The library in C++: handles in classes, callbacks into objects, and a backend that is a class. tests/bindings/common says what
// it does.
#include <ploop/ploop.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace
{

const std::uint64_t MIB = 1 << 20;
const std::uint64_t FOREVER = UINT64_MAX;

void must(bool right, const char *what)
{
    if (!right) {
        throw std::runtime_error(what);
    }
}

using Bytes = std::vector<unsigned char>;

Bytes pattern(unsigned first)
{
    Bytes bytes(4096);
    for (std::size_t i = 0; i < bytes.size(); i++) {
        bytes[i] = static_cast<unsigned char>((7 * i + first) % 251);
    }
    return bytes;
}

// A backend over memory.
class Storage
{
public:
    ~Storage() { must_be_closed(); }

    ploop_file *open()
    {
        struct ploop_io_ops ops = {};
        ops.size = sizeof(ops);
        ops.get_info = get_info;
        ops.submit = submit;
        ops.close = close;
        ploop_file *file = nullptr;
        must(ploop_file_create(&ops, this, &file) == 0, "ploop_file_create");
        opened_ = true;
        return file;
    }

    unsigned requests() const { return requests_; }

private:
    static int get_info(void *context, struct ploop_file_info *info)
    {
        Storage &self = *static_cast<Storage *>(context);
        std::lock_guard<std::mutex> guard(self.mutex_);
        info->file_size = self.bytes_.size();
        info->capabilities = PLOOP_FILE_CAN_GROW;
        info->request_alignment = 1;
        return 0;
    }

    static int submit(void *context, struct ploop_io *io)
    {
        ploop_io_complete(io, static_cast<Storage *>(context)->carry_out(*io));
        return 0;
    }

    static void close(void *context) { static_cast<Storage *>(context)->opened_ = false; }

    std::int64_t carry_out(const struct ploop_io &io)
    {
        std::lock_guard<std::mutex> guard(mutex_);
        requests_++;
        switch (io.op) {
        case PLOOP_IO_READ:
        case PLOOP_IO_WRITE:
            return transfer(io);
        case PLOOP_IO_SYNC:
            return 0;
        case PLOOP_IO_TRUNCATE:
            bytes_.resize(static_cast<std::size_t>(io.offset));
            return 0;
        default:
            return -EOPNOTSUPP;
        }
    }

    std::int64_t transfer(const struct ploop_io &io)
    {
        std::size_t place = static_cast<std::size_t>(io.offset);
        if (io.op == PLOOP_IO_WRITE && place + io.length > bytes_.size()) {
            bytes_.resize(place + static_cast<std::size_t>(io.length));
        }
        for (std::uint32_t i = 0; i < io.iov_count && place < bytes_.size(); i++) {
            const struct iovec &piece = io.iov[i];
            const std::size_t count = std::min(piece.iov_len, bytes_.size() - place);
            void *here = bytes_.data() + place;
            std::memcpy(io.op == PLOOP_IO_READ ? piece.iov_base : here, io.op == PLOOP_IO_READ ? here : piece.iov_base, count);
            place += count;
        }
        return static_cast<std::int64_t>(place - io.offset);
    }

    void must_be_closed() const
    {
        if (opened_) {
            std::cerr << "the backend was not closed\n";
            std::abort();
        }
    }

    std::mutex mutex_;
    Bytes bytes_;
    unsigned requests_ = 0;
    bool opened_ = false;
};

struct CloseFile {
    void operator()(ploop_file *file) const { ploop_file_close(file); }
};
using File = std::unique_ptr<ploop_file, CloseFile>;

struct PutPio {
    void operator()(ploop_pio *pio) const { ploop_pio_put(pio); }
};
using Pio = std::unique_ptr<ploop_pio, PutPio>;

// One request at a time, in either of the two ways to hear of its end.
class Requests
{
public:
    explicit Requests(ploop_dev *dev) : queue_(ploop_dev_queue(dev, 0)), pio_(ploop_pio_get(queue_))
    {
        must(queue_ && pio_, "a queue and a request");
    }

    void by_callback()
    {
        ploop_pio_set_callback(pio_.get(), done, this);
        done_ = false;
        submit();
        while (!done_) {
            must(ploop_queue_wait(queue_, FOREVER) >= 0, "ploop_queue_wait");
        }
        must(result_ == 0, "the request");
    }

    void by_array()
    {
        struct ploop_completion completions[4];
        ploop_pio_set_callback(pio_.get(), nullptr, this);
        submit();
        int count = 0;
        while ((count = ploop_queue_reap(queue_, completions, 4)) == 0) {
            must(ploop_queue_wait(queue_, FOREVER) == 0, "ploop_queue_wait");
        }
        must(count == 1 && completions[0].pio == pio_.get() && completions[0].user_data == this, "a completion");
        must(completions[0].kind == PLOOP_COMPLETION_PIO && completions[0].result == 0, "its result");
    }

    void round(std::uint64_t offset, const Bytes &content, void (Requests::*finish)())
    {
        Bytes out = content, in(content.size());
        struct iovec piece = {out.data(), out.size()};
        ploop_pio_prep_writev(pio_.get(), offset, &piece, 1, 0);
        (this->*finish)();
        ploop_pio_prep_flush(pio_.get());
        (this->*finish)();
        piece.iov_base = in.data();
        ploop_pio_prep_readv(pio_.get(), offset, &piece, 1);
        (this->*finish)();
        must(in == content, "what was written is read");
    }

private:
    static void done(ploop_pio *, int result, void *user_data)
    {
        Requests &self = *static_cast<Requests *>(user_data);
        self.result_ = result;
        self.done_ = true;
    }

    void submit()
    {
        ploop_pio *pio = pio_.get();
        must(ploop_queue_submit(queue_, &pio, 1) == 1, "ploop_queue_submit");
    }

    ploop_queue *queue_;
    Pio pio_;
    bool done_ = false;
    int result_ = 0;
};

void use(ploop_file *file)
{
    struct ploop_image_options options = {};
    options.size = sizeof(options);
    options.disk_size = 64 * MIB;
    options.cluster_size = 64 << 10;
    must(ploop_image_create(file, &options) == 0, "ploop_image_create");
    ploop_dev *dev = nullptr;
    must(ploop_dev_open(&file, 1, nullptr, &dev) == 0, "ploop_dev_open");
    {
        Requests requests(dev);
        requests.round(1 * MIB, pattern(1), &Requests::by_callback);
        requests.round(2 * MIB, pattern(2), &Requests::by_array);
    }
    must(ploop_dev_close(dev) == 0, "ploop_dev_close");
    struct ploop_check_result result = {};
    result.size = sizeof(result);
    must(ploop_image_check(file, nullptr, &result) == 0 && result.errors == 0 && result.leaks == 0, "ploop_image_check");
}

} // namespace

int main(int argc, char **argv)
{
    try {
        must(argc == 2, "usage: program IMAGE");
        ploop_file *file = nullptr;
        must(ploop_file_open_posix(argv[1], PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file) == 0, "ploop_file_open_posix");
        use(File(file).get());
        Storage storage;
        use(File(storage.open()).get());
        must(storage.requests() > 0, "the backend was asked");
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
    return 0;
}
