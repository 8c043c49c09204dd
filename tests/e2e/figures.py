"""The bounds and sizes that the daemon was built with, out of its own headers: what a test asserts
follows limits.h, and a structure that grows shows up in the figure that it belongs to."""

import functools
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONSTANTS = '''
CHUNK_SMALL_BYTES CHUNK_LARGE_BYTES RECORD_SEALED_MAX INPUT_MAX HANDSHAKE_INPUT_MAX TX_HIGH CTL_MAX
RECV_BUFS RECV_BUF_BYTES SCRATCH_BYTES JOIN_BYTES STREAM_JOIN_BYTES SENDS_PER_TURN HALF_RECORD_MS
STREAM_INPUT_MAX STOP_STREAMS_MAX PING_STREAMS_MAX IDENT_STREAMS_MAX HOP_STREAMS_MAX
PUSH_STREAMS_MAX STREAM_NEGOTIATE_MS HOP_MESSAGE_MS STREAM_LINGER_MS PUSH_MS CLOSE_LINGER_MS
MUX_PING_BURST MUX_PING_MS SYN_BURST SYN_MS REFUSED_BURST REFUSED_MS RESERVE_BURST RESERVE_MS
ACCEPT_RETRY_MS YAMUX_WINDOW
YAMUX_GRANT_MIN RECORD_BODY MSS_FRAME_MAX HOP_MSG_MAX NOISE_HANDSHAKE_MAX
'''.split()
STRUCTS = 'conn stream circuit handshake chunk send_args'.split()

SOURCE = '''
#include <stdio.h>
#include "engine/shard.h"
int main(void)
{
%s
    return 0;
}
'''


@functools.lru_cache(None)
def figures():
    """{name: value}, sizes as sizeof_NAME."""
    lines = ['    printf("%s %%lld\\n", (long long)%s);' % (name, name) for name in CONSTANTS]
    lines += ['    printf("sizeof_%s %%zu\\n", sizeof(struct %s));' % (name, name)
              for name in STRUCTS]
    with tempfile.TemporaryDirectory() as d:
        program = pathlib.Path(d) / 'figures'
        subprocess.run([os.environ.get('CC', 'cc'), '-std=c17', '-D_GNU_SOURCE', '-I', str(ROOT),
                        '-x', 'c', '-', '-o', str(program)],
                       input=SOURCE % '\n'.join(lines), text=True, check=True)
        out = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in (line.split() for line in out.splitlines())}


def __getattr__(name):
    """figures.TX_HIGH"""
    if name in CONSTANTS or name.startswith('sizeof_'):
        return figures()[name]
    raise AttributeError(name)


def held(size, pieces=False):
    """Bytes of chunks that keep `size` bytes at most. In pieces: in the least favourable ones, each
    chunk but the last a full small one, and the last a large one for a piece that just asks for it;
    else as they are kept when they came at once."""
    f = figures()
    large, small = f['CHUNK_LARGE_BYTES'], f['CHUNK_SMALL_BYTES']
    room_large, room_small = large - f['sizeof_chunk'], small - f['sizeof_chunk']
    if pieces:
        return -(-size // room_small) * small + large
    rest = size % room_large
    return size // room_large * large + (0 if not rest else small if rest <= room_small else large)
