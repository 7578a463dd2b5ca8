"""IDX files that claim more than they hold, or than memory does."""
import gzip
import os
import tracemalloc
import zlib

import idx_data
from support.test_tools import TestCase


class TestClaims(TestCase):
    def test_bomb(self):
        header = bytes.fromhex("00000801 00000064")  # says 100 bytes; 10**8 follow
        packer = zlib.compressobj(9, wbits=31)
        packed = packer.compress(header)
        for _ in range(100):
            packed += packer.compress(bytes(10**6))
        path = self.file(packed + packer.flush())
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.fails(lambda: idx_data.read_idx(path), "found more")
        self.assertLess(tracemalloc.get_traced_memory()[1], 10**7)

    def test_more_than_memory_holds_is_refused_by_the_header(self):
        """Files of gigabytes that take no place on the disk; what comes after a header is not
        looked at."""
        header = bytes.fromhex("00000803 00080000 00001000 00001000")  # 8 TiB of bytes
        words = bytes.fromhex("00000c03 00020000 00001000 00001000")  # of int32: not to be mapped
        for data, size in ((words, (1 << 43) + 16), (gzip.compress(header + bytes(99)), 1 << 34)):
            path = self.file(data)
            try:
                os.truncate(path, size)
            except OSError as error:
                self.skipTest(f"no such large file here: {error}")
            self.fails(lambda: idx_data.read_idx(path), path, "8,796,093,022,208 bytes",
                       "of free memory")

    def test_a_gzip_file_takes_no_more_than_its_elements(self):
        raw = bytes.fromhex("00000801 00989680") + bytes(10**7)
        path = self.file(gzip.compress(raw))
        del raw
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        idx_data.read_idx(path)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1.2e7)
