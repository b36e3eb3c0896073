# tasks.py
import asyncio

from taskq import Retry, TaskQ, cron, current_job

q = TaskQ()


@q.task(timeout=60, retry=Retry(max_attempts=3, backoff=0.5, on=(ConnectionError,)))
async def write_report(name: str, pages: int = 5) -> str:
    if pages < 1:
        raise ValueError("a report has at least one page")
    for page in range(1, pages + 1):
        await asyncio.sleep(0.2)  # stands for real work
        await current_job().progress(page, pages)
    return f"{name}: {pages} pages"


@q.schedule(cron("0 8 * * mon-fri", tz="Europe/Berlin"))
@q.task
async def order_daily_report() -> str:
    job = current_job()
    day = job.scheduled_for or job.enqueued_at
    report = await write_report.options(id=f"report:{day:%Y-%m-%d}").enqueue(f"{day:%Y-%m-%d}")
    return report.id
