const path = require('node:path');
const cdk = require('aws-cdk-lib');
const s3assets = require('aws-cdk-lib/aws-s3-assets');
const sqs = require('aws-cdk-lib/aws-sqs');
const ssm = require('aws-cdk-lib/aws-ssm');

class Data extends cdk.Stack {
  constructor(scope, id, props) {
    super(scope, id, props);
    this.queue = new sqs.Queue(this, 'Orders');
    new ssm.StringParameter(this, 'Size', { stringValue: String(this.node.getContext('shop:size')) });
    new ssm.StringParameter(this, 'Nested', { stringValue: JSON.stringify(this.node.getContext('shop:nested')) });
    new ssm.StringParameter(this, 'All', { stringValue: JSON.stringify(this.node.getAllContext()) });
  }
}

class Api extends cdk.Stack {
  constructor(scope, id, props) {
    super(scope, id, props);
    const site = new s3assets.Asset(this, 'Site', { path: path.join(__dirname, '..', 'site') });
    new cdk.CfnOutput(this, 'QueueUrl', { value: props.queue.queueUrl });
    new cdk.CfnOutput(this, 'SiteKey', { value: site.s3ObjectKey });
  }
}

const app = new cdk.App();
const env = { account: process.env.CDK_DEFAULT_ACCOUNT, region: process.env.CDK_DEFAULT_REGION };
const data = new Data(app, 'ShopData', { env });
new Api(app, 'ShopApi', { env, queue: data.queue });
const stage = new cdk.Stage(app, 'Prod', { env });
new Data(stage, 'Db');
app.synth();
