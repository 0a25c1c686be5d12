import shutil, json
from pathlib import Path
import pytest
from tests.support.engine import Migration, rows
FX=Path("/work/main/tests/fixtures")
@pytest.mark.parametrize("name,params",[("checkpoint-sqlite-3.1.2",{"allow_pickle":True}),("checkpoint-sqlite-2.0.6",{"on_blocker":"sanitize"}),("checkpoint-sqlite-1.0.4",{"on_blocker":"sanitize"}),("js-checkpoint-sqlite-1.0.4",{}),("checkpoint-sqlite-2.0.6",{}),("checkpoint-sqlite-1.0.4",{}),("checkpoint-sqlite-3.1.2",{}),])
def test_x(database,tmp_path,name,params):
    src=tmp_path/"s.sqlite"; shutil.copyfile(FX/f"{name}.sqlite",src)
    m=Migration(database.dsn,src,tmp_path/"e",params,aes_key=b"0123456789abcdef",max_export_tasks=2,max_load_tasks=2)
    try: m.all()
    except Exception as e: print(type(e),e)
    r=m.report
    for k in ("verdict","sentence","warnings","differences","counts"): print(k,json.dumps(r[k],indent=0)[:2500])
    print(len(r["blockers"]),json.dumps(r["blockers"][:12],indent=0))
