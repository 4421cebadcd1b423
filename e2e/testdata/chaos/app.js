// Two stacks, one of them with an asset. What they are called is in name.txt.
const fs = require('node:fs');
const { App, CfnOutput, CfnResource, Stack } = require('aws-cdk-lib/core');
const { Asset } = require('aws-cdk-lib/aws-s3-assets');

const name = fs.readFileSync('name.txt', 'utf8').trim();
const app = new App();
const data = new Stack(app, `${name}-data`);
const page = new Asset(data, 'Page', { path: 'page.html' });
const location = new CfnResource(data, 'Location', {
  type: 'AWS::SSM::Parameter',
  properties: { Name: `/chaos/${name}/location`, Type: 'String', Value: page.s3ObjectKey },
});
new CfnOutput(data, 'LocationName', { value: location.ref });
const api = new Stack(app, `${name}-api`);
const greeting = new CfnResource(api, 'Greeting', {
  type: 'AWS::SSM::Parameter',
  properties: { Name: `/chaos/${name}/greeting`, Type: 'String', Value: 'hello' },
});
new CfnOutput(api, 'GreetingName', { value: greeting.ref });
// For the harness, which gives the pipeline's repository just the files of the
// library that are loaded: installing all of it would be most of a run.
process.on('exit', () => {
  if (process.env.CHAOS_LOADED) {
    fs.writeFileSync(process.env.CHAOS_LOADED, Object.keys(require.cache).join('\n'));
  }
});
