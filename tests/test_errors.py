import pickle

import pytest

from opentrn import errors


def test_a_kernel_error_starts_with_the_users_line():
    error = errors.ValidationError("the partition size is 129, at most 128 fit", ("kernel.py", 12))
    assert str(error) == "kernel.py:12: the partition size is 129, at most 128 fit"
    assert error.source == ("kernel.py", 12)


def test_a_kernel_error_without_a_line_is_its_message():
    assert str(errors.KernelError("no grid given")) == "no grid given"


@pytest.mark.parametrize("source", [None, ("kernel.py", 12)])
def test_errors_survive_the_way_between_processes(source):
    error = pickle.loads(pickle.dumps(errors.CapacityError("SBUF is full", source)))
    assert type(error) is errors.CapacityError
    assert (error.source, error.reason) == (source, "SBUF is full")
    assert str(error).count("SBUF is full") == 1 and str(error).count("kernel.py") == (1 if source else 0)


def test_one_except_clause_catches_the_family():
    children = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(children) >= 8
    assert all(issubclass(child, errors.OpenTrnError) for child in children)
