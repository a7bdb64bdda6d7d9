// SPDX-License-Identifier: MIT
// What consumer.c does, in C++: prints the version of the library it runs with.
#include <cstdint>
#include <cstdio>
#include <ploop/ploop.h>
#include <vector>

int main()
{
    struct ploop_image_options options = {};
    options.size = sizeof(options);
    options.disk_size = 10 << 20;
    ploop_file *file = nullptr;
    ploop_dev *dev = nullptr;
    if (ploop_file_create_memory(0, &file) || ploop_image_create(file, &options) ||
        ploop_dev_open(&file, 1, nullptr, &dev)) {
        return 1;
    }
    std::vector<unsigned char> out(512, 7), in(512);
    const bool moved = ploop_dev_pwrite(dev, out.data(), out.size(), 5 << 20) == 512 &&
                       ploop_dev_pread(dev, in.data(), in.size(), 5 << 20) == 512;
    const int closed = ploop_dev_close(dev);
    ploop_file_close(file);
    const std::uint32_t version = ploop_version();
    std::printf("%u.%u.%u\n", version >> 16, version >> 8 & 255, version & 255);
    return moved && in == out && !closed ? 0 : 1;
}
