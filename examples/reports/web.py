"""The web application: it answers at once, and leaves the work to tasks."""

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import FileResponse

from reports.tasks import StoreDep, q, send_welcome, write_report
from taskq.fastapi import BackgroundTasks, job_router, lifespan

# A worker inside, for a start. Later: `taskq worker reports.tasks:q`, and lifespan=q.lifespan here.
app = FastAPI(title="Reports", lifespan=lifespan(q, worker={"concurrency": 10}))
# Shows jobs to this machine alone. In production a dependency says who may see them: auth=...
app.include_router(job_router(q, development=True))


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/signup")
async def signup(address: str, tasks: BackgroundTasks, store: StoreDep) -> dict[str, int]:
    store.members.append(address)
    # After the response, in this process; if it dies, a worker sends the mail
    tasks.options(durable=True).add_task(send_welcome, address)
    return {"members": len(store.members)}


@app.post("/reports", status_code=202)
async def order(title: str, pages: Annotated[int, Query(ge=1, le=100)] = 10) -> dict[str, str]:
    job = await write_report.enqueue(title, pages)
    return {"job": job.id}


@app.get("/mails")
async def mails(store: StoreDep) -> list[str]:
    return store.mails
