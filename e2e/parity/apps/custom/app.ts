import { CfnOutput, CustomResource, Stack } from 'aws-cdk-lib';
import { Code, Function as Lambda, Runtime } from 'aws-cdk-lib/aws-lambda';
import { app, env, variant, vary } from '../kit';

const code = `
import json, urllib.request
def handler(event, context):
    body = {"Status": "SUCCESS", "PhysicalResourceId": "greeting", "StackId": event["StackId"], "RequestId": event["RequestId"],
            "LogicalResourceId": event["LogicalResourceId"], "Data": {"Greeting": "hello " + event["ResourceProperties"]["Name"]}}
    urllib.request.urlopen(urllib.request.Request(event["ResponseURL"], data=json.dumps(body).encode(), method="PUT", headers={"Content-Type": ""}))
`;
const stack = vary(new Stack(app, 'custom', { env }));
const provider = new Lambda(stack, 'Provider', { runtime: Runtime.PYTHON_3_12, handler: 'index.handler', code: Code.fromInline(code) });
const greeting = new CustomResource(stack, 'Greeting', { serviceToken: provider.functionArn, properties: { Name: variant } });
new CfnOutput(stack, 'Text', { value: greeting.getAttString('Greeting') });
