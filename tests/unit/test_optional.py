import pytest

from tests.optional import need


def test_a_package_to_compare_with_may_be_missing_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    need("numpy")
    monkeypatch.delenv("GALD_CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="nothing_of_this_name is not installed"):
        need("nothing_of_this_name")
    monkeypatch.setenv("GALD_CI", "1")
    need("numpy")
    with pytest.raises(pytest.fail.Exception, match="nothing_of_this_name is not installed, and the long tests"):
        need("nothing_of_this_name")
