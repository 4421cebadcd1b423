# Stands for a CDK app in scenarios whose subject is not the synthesis: the
# assembly is in the repository.
set -eu
. ./ledger.sh
did synth
mkdir -p "$CDK_OUTDIR"
cp -R assembly/. "$CDK_OUTDIR"
