"""The interpreter's table of operations against coremltools' own registry, and the room's README against both."""

import runpy
from pathlib import Path

import pytest

import exporter.mil
from exporter.mil.plan import parameters
from exporter.mil.registry import KERNELS

README = Path(exporter.mil.__file__).with_name("README.md")

# Operations of the registry without a kernel, and why; the README says the same under "Left out".
LEFT_OUT = {"_const_symbolic"}
# Constants are read by the loader; `coreml_update_state` is written into packages as write_state and read_state.
ELSEWHERE = {"const"}
ONLY_IN_PACKAGES = {"write_state"}
# Operations that are more than a function of arrays; test_functions.py has them in programs, all others have cases.
TESTED_AS_PROGRAMS = {
    *("cond", "while_loop", "read_state", "write_state", "classify", "non_maximum_suppression"),
    *("make_list", "list_length", "list_read", "list_write", "list_gather", "list_scatter"),
    *("random_bernoulli", "random_categorical", "random_normal", "random_uniform"),
}


@pytest.fixture(scope="module")
def registry(coremltools):
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    return SSAOpRegistry


def test_every_registered_operation_is_computed_or_listed(registry):
    registered = set(registry.core_ops)
    assert registered - set(KERNELS) == LEFT_OUT | ELSEWHERE
    assert set(KERNELS) - registered == ONLY_IN_PACKAGES
    # Dialects exist inside the converter only; what it writes for them are the operations above.
    dialects = {name for name in registry.dialect_ops if not name.startswith(("complex", "torch_"))}
    assert dialects == {"coreml_update_state"}


def test_kernels_take_exactly_the_inputs_of_the_registered_versions(registry, coremltools):
    """Every input that some version of iOS 15 to 18 knows is accepted; one that all versions require is required."""
    targets = [getattr(coremltools.target, f"iOS{release}") for release in (15, 16, 17, 18)]
    for name, versions in registry.core_ops.items():
        if name not in KERNELS:
            continue
        classes = [versions[target] for target in targets if target in versions]
        specs = [
            {key: kind for key, kind in cls.input_spec.input_types.items() if not key.startswith("_")}
            for cls in classes
        ]
        accepted = parameters(KERNELS[name])
        known = set().union(*specs)
        assert set(accepted) == known, name
        for key, required in accepted.items():
            if required:
                assert all(key in spec and not spec[key].optional for spec in specs), f"{name}.{key} is optional"


def test_every_operation_has_cases_at_every_release_that_has_it(registry, coremltools):
    judged = {}
    for file in Path(__file__).parent.glob("cases/test_*.py"):
        for case in runpy.run_path(str(file))["CASES"]:
            judged.setdefault(case.op, set()).update(case.opsets())
    assert set(KERNELS) - set(judged) == TESTED_AS_PROGRAMS
    for name, releases in judged.items():
        first = min(registry.core_ops[name], key=lambda target: target.value).value
        having = {release for release in (15, 16, 17, 18) if coremltools.target[f"iOS{release}"].value >= first}
        assert having == releases, name


def test_the_readme_lists_what_is_left_out(registry):
    text = README.read_text()
    section = text.split("## Left out")[1].split("\n## ")[0]
    for name in LEFT_OUT:
        assert f"`{name}`" in section
    counted = f"{len(set(KERNELS) & set(registry.core_ops)) + len(ELSEWHERE)} of {len(registry.core_ops)}"
    assert counted in text, f"the README should say that {counted} operations are covered"
