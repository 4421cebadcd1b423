const cdk = require('aws-cdk-lib');
console.log('{"Resources": "not a template"}', process.argv.slice(2).join(' '));
console.error('on standard error');
const app = new cdk.App();
new cdk.CfnOutput(new cdk.Stack(app, 'Chatty'), 'Out', { value: 'x' });
app.synth();
