const { spawn } = require('node:child_process');
const { writeFileSync } = require('node:fs');
const child = spawn('sh', ['-c', "trap '' TERM; while :; do sleep 1; done"], { stdio: 'ignore' });
writeFileSync(process.env.CDK_OUTDIR + '.pids', `${process.pid} ${child.pid}`);
process.on('SIGTERM', () => console.log('not yet'));
console.log('waiting for the moon');
setInterval(() => {}, 1000);
