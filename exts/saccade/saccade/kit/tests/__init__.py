"""Cases for omni.kit.test, to be run inside Isaac Sim: scripts/test_in_isaac.sh does."""

scan_for_test_modules = True
