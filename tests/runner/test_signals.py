"""Signals that ask a study to stop are heard, and no others."""

import os
import signal

import pytest

from plasticity_jax.runner import signals

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_a_signal_is_a_flag_while_inside(number):
    before = [signal.getsignal(each) for each in STOPS]
    with signals.listening() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
    assert [signal.getsignal(each) for each in STOPS] == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.listening() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_came_before_a_study_began_to_listen_is_not_forgotten():
    """As during imports, in one of several processes."""
    with signals.listening() as early:
        os.kill(os.getpid(), signal.SIGTERM)
        with signals.listening() as stopped:
            assert stopped()
        with signals.listening() as stopped:
            assert stopped() and early()
    with signals.listening() as stopped:
        assert not stopped()
