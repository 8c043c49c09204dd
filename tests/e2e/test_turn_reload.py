"""Secrets and users of TURN change while it runs (turn.md §8.3: "reload without restart")."""

import contextlib
import signal

import pytest

from turn import ephemeral


def reload(turnd):
    """As often as it takes: one that comes a moment after another is refused."""
    def done():
        return turnd.relay.log().count('users of TURN are in force') > before

    def again():
        turnd.relay.proc.send_signal(signal.SIGHUP)
        with contextlib.suppress(AssertionError):
            turnd.relay.until(done, 1, 'the reload')
        return done()
    before = turnd.relay.log().count('users of TURN are in force')
    turnd.relay.until(again, 10, 'the reload')


def allocates(turnd, user, password):
    with turnd.udp(user=user, password=password) as client:
        return client.request(0x003, (0x0019, b'\x11\0\0\0')).code


@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_41_a_secret_is_replaced_under_calls(turn_start, tmp_path):
    secrets = tmp_path / 'secrets'
    secrets.write_text('old\n')
    live = turn_start('--turn-secret-file', secrets, users=(), secrets=())
    old, new = ephemeral('old'), ephemeral('new')
    call = live.udp(user=old[0], password=old[1]).allocate()
    assert allocates(live, *new) == 401

    secrets.write_text('new\nold\n')  # the new one signs, both verify
    reload(live)
    assert not allocates(live, *new) and not allocates(live, *old)

    secrets.write_text('new\n')
    reload(live)
    assert not allocates(live, *new)
    assert allocates(live, *old) == 401
    assert call.refresh(600).lifetime == 600, 'a call keeps the key that it began with'


@pytest.mark.sanitize
def test_turn_users_come_and_go(turn_start, tmp_path):
    users = tmp_path / 'users'
    users.write_text('ann:one\nben:two\n')
    live = turn_start('--turn-users-file', users, users=(), secrets=())
    assert not allocates(live, 'ann', 'one') and not allocates(live, 'ben', 'two')
    users.write_text('ann:three\ncat:four\n')
    reload(live)
    assert not allocates(live, 'ann', 'three') and not allocates(live, 'cat', 'four')
    assert allocates(live, 'ann', 'one') == 401 and allocates(live, 'ben', 'two') == 401


def test_turn_a_reload_that_is_refused_changes_nothing(turn_start, tmp_path):
    users = tmp_path / 'users'
    users.write_text('ann:one\n')
    live = turn_start('--turn-users-file', users, users=(), secrets=())
    users.write_text('no colon\n')
    live.relay.proc.send_signal(signal.SIGHUP)
    live.relay.until(lambda: 'reload refused' in live.relay.log(), 10, 'the refusal')
    assert not allocates(live, 'ann', 'one')
