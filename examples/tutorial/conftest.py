# conftest.py
import os
import tempfile

# An embedded server for this test run, whatever the environment says
os.environ.pop("TASKQ_URL", None)
os.environ["TASKQ_DIR"] = tempfile.mkdtemp(prefix="taskq-", dir="/tmp")
