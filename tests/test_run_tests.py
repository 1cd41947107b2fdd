"""``make test``: what it says of a step that passed, failed, or had nothing to run."""

import sys

import pytest
import run_tests

SKIPPED = "import pytest\n\ndef test_a(): pytest.skip('no browser')\n"


@pytest.mark.parametrize(
    "source, verdict",
    [
        ("def test_a(): pass\n", "passed"),
        (SKIPPED, "SKIPPED (all 1; the report above says why)"),
        (SKIPPED + "def test_b(): pass\n", "passed (1 of 2 skipped)"),
        (SKIPPED + "def test_b(): assert False\n", "FAILED"),
        ("import no_such_module\n", "FAILED"),
    ],
    ids=["passed", "all skipped", "some skipped", "failed", "broken"],
)
def test_a_step_of_tests_says_what_was_skipped(tmp_path, source, verdict, capfd):
    (tmp_path / "test_made.py").write_text(source)
    parts = ["-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path / "test_made.py")]
    assert run_tests.step("made", lambda: run_tests.tests(*parts)) == verdict
    assert f"== made: {verdict} after" in capfd.readouterr().out


@pytest.mark.parametrize("status, verdict", [(0, "passed"), (2, "FAILED")])
def test_a_step_of_another_command_goes_by_its_status(status, verdict):
    assert run_tests.step("made", lambda: status) == verdict


def test_bands_fail_where_no_notebook_noted_a_run(tmp_path, capfd):
    call = [sys.executable, "-m", "tl_helpers", "check-bands", "--folder", str(tmp_path)]
    assert run_tests.step("bands", lambda: run_tests.command(*call)) == "FAILED"
    assert "nothing was checked" in capfd.readouterr().err
