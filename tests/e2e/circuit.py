"""Circuit relay v2 and its neighbours as a client speaks them, over rawp2p sessions."""

import concurrent.futures
import struct

from wire import (HOP, IDENTIFY, OK, STATUS, STOP, HopMessage, StopMessage, WireError, hop_connect,
                  hop_reserve, stop_status)


def hop_request(session, message, timeout=15, style='window'):
    """(answer, stream) of one message on a fresh hop stream."""
    stream = session.open(HOP, message, style)
    answer = HopMessage(stream.message(timeout))
    if answer.type != STATUS:
        raise WireError('hop: type %r' % answer.type)
    return answer, stream


def reserve(session, timeout=15, style='window'):
    answer, stream = hop_request(session, hop_reserve(), timeout, style)
    stream.wait_eof(timeout)
    stream.close_write()
    return answer


def dial(session, peer, timeout=15, style='window', first=b''):
    """(answer, stream); the stream is the circuit when the answer is OK."""
    answer, stream = hop_request(session, hop_connect(peer) + first, timeout, style)
    if answer.status != OK:
        stream.close_write()
    return answer, stream


def accept_stop(session, status=OK, timeout=10, behind=b''):
    """Waits for a STOP, answers it; (message, stream). Needs `serve_stop` on the session.
    behind: sent in the same frame as the status."""
    stream = session.accept(timeout)
    message = StopMessage(stream.message(timeout))
    if message.type != 0:
        raise WireError('stop: type %r' % message.type)
    if status is not None:
        stream.send(stop_status(status) + behind)
    return message, stream


def serve_stop(session):
    """STOP streams are handed to accept_stop."""
    session.protocols[STOP] = None
    return session


def auto_stop(session, on_circuit=None, status=OK):
    """Every STOP is answered at once, by the reactor; circuits gather in session.circuits."""
    session.circuits = []

    def message(stream):
        got = stream.take_message()
        if got is None:
            return
        stream.hook = None
        stream.send(stop_status(status))
        if status == OK:
            session.circuits.append(stream)
            if on_circuit:
                on_circuit(stream)
        else:
            stream.close_write()

    def handler(stream):
        stream.hook = message
        message(stream)
    session.protocols[STOP] = handler
    return session


def join(source, target, timeout=10):
    """A circuit between two sessions; (source's stream, target's stream)."""
    serve_stop(target)
    stream = source.open(HOP, hop_connect(target.key.peer_id))
    _, far = accept_stop(target, timeout=timeout)
    answer = HopMessage(stream.message(timeout))
    if answer.status != OK:
        raise WireError('connect: status %r' % answer.status)
    return stream, far


def get_identify(session, timeout=5):
    stream = session.open(IDENTIFY)
    data = stream.recv_to_eof(timeout)
    stream.close_write()
    return data


def ping(stream, payload=None, timeout=5):
    payload = payload or struct.pack('>Q', id(stream)) * 4
    stream.send(payload)
    return stream.recv(len(payload), timeout) == payload


def crowd(relay, size, work=None, **options):
    """Many sessions, made by a few threads; `work` is done on each."""
    def one(_):
        session = relay.connect(**options)
        if work:
            work(session)
        return session
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(size)))
