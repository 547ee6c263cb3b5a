from polaris.evaluation.provenance import versions


def test_versions_name_what_decides_samples_and_verdicts():
    assert {"python", "polaris", "torch", "transformers", "math-verify", "sympy"} <= versions().keys()
