"""The table of keys: what stands in it, and the registries that it is tried on."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.checks", f"{__name__}.checks_tokens", f"{__name__}.places")
