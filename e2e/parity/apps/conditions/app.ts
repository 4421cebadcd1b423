import { CfnCondition, CfnMapping, CfnOutput, CfnParameter, CfnRule, Fn, Stack } from 'aws-cdk-lib';
import { CfnTopic } from 'aws-cdk-lib/aws-sns';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'conditions', { env }));
const stage = new CfnParameter(stack, 'Stage', { default: 'dev', allowedValues: ['dev', 'prod'] });
const isProd = new CfnCondition(stack, 'IsProd', { expression: Fn.conditionEquals(stage.valueAsString, 'prod') });
const sizes = new CfnMapping(stack, 'Sizes', { mapping: { dev: { size: 'small' }, prod: { size: 'large' } } });
const topic = new CfnTopic(stack, 'OnlyProd');
topic.cfnOptions.condition = isProd;
new StringParameter(stack, 'Size', { stringValue: Fn.conditionIf(isProd.logicalId, 'huge', sizes.findInMap(stage.valueAsString, 'size')).toString() });
new CfnRule(stack, 'StageRule', { assertions: [{ assert: Fn.conditionContains(['dev', 'prod'], stage.valueAsString), assertDescription: 'a known stage' }] });
new CfnOutput(stack, 'Stage_', { value: stage.valueAsString }).overrideLogicalId('StageIs');
